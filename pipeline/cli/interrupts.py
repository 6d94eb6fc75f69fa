"""How a command ends: its exit code, its errors in one line, Ctrl-C and SIGTERM.

The first signal ends the run in order: calls in flight are cancelled, received answers are journalled, the lock is released.
A second one, or four seconds, ends it at once, since what a stage computes can't be stopped. Either can be resumed.
"""

import atexit
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from pipeline.cli.console import discard
from pipeline.errors import CurationError, StorageError

_PATIENCE_S = 4.0
# A pager was left, or the disk that standard output goes to is full.
_STREAM_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EIO)


class Stopped(KeyboardInterrupt):
    """A signal asks the process to end. exit_code: 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise Stopped in the main thread at the first signal. In other threads of a process: no effect."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if received:
            _leave(number)
        received.append(number)
        timer = threading.Timer(_PATIENCE_S, _leave, [number])
        timer.daemon = True
        timer.start()
        raise Stopped(number)

    # Runs when all threads have ended, the journal's among them, and after whatever is registered later.
    atexit.register(_end, received)
    handlers = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        # After a signal the process ends: a second Ctrl-C counts until the interpreter is gone.
        if not received:
            for number, handler in handlers.items():
                signal.signal(number, handler)


def exit_code_of(work: Callable[[], int], interrupted: str) -> int:
    """The exit code of a command's work. interrupted: what the user reads after a signal."""
    code = 130
    try:
        with stoppable():
            code = work()
            sys.stdout.flush()
            return code
    except (CurationError, KeyboardInterrupt) as error:
        return print_error(error, interrupted)
    except OSError as error:
        if error.filename is not None or error.errno not in _STREAM_ERRORS:
            raise
        discard(sys.stdout)
        if error.errno == errno.EPIPE:
            return code
        print(f"error: output can't be written: {error.strerror}", file=sys.stderr)
        return StorageError.exit_code


def print_error(error: BaseException, interrupted: str) -> int:
    """Print why a command ended, on one line; returns the exit code."""
    print(f"error: {error}" if isinstance(error, CurationError) else f"interrupted; {interrupted}", file=sys.stderr)
    return int(getattr(error, "exit_code", 130))


def _end(received: list[int]) -> None:
    """After a signal, skip the interpreter's own teardown, which takes a second and more."""
    if received:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(128 + received[0])


def _leave(number: int) -> None:
    """End without another step. What is journalled or committed is on disk already."""
    print("interrupted at once; run the same command again", file=sys.stderr, flush=True)
    os._exit(128 + number)
