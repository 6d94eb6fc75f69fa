"""Ctrl-C and SIGTERM: the first one ends the run in order, a second one, or four seconds, at once. Either can be resumed.

In order means: calls in flight are cancelled, answers that were received are journalled, shards at work end or are given up,
the lock is let go. What a stage computes meanwhile can't be stopped, so the process leaves when the time is up. Nor does it
take the interpreter down object by object, which lasts a second, and ten on a busy machine.
"""

from __future__ import annotations

import atexit
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from pipeline.cli.streams import drop
from pipeline.errors import CurationError, StorageError

_PATIENCE_S = 4.0
# A pager was left, or the disk that standard output goes to is full.
_OF_STREAMS = (errno.EPIPE, errno.ENOSPC, errno.EIO)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """The process was asked to end. exit_code: 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise Stopped in the main thread at the first signal. In other threads of a process: no effect."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if asked:
            _leave(number)
        asked.append(number)
        timer = threading.Timer(_PATIENCE_S, _leave, [number])
        timer.daemon = True
        timer.start()
        raise Stopped(number)

    # Runs when all threads have ended, the journal's among them, and behind whatever is registered later.
    atexit.register(_end, asked)
    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        # Once asked to end, the process does: a second Ctrl-C counts until the interpreter is gone.
        if not asked:
            for number, handler in before.items():
                signal.signal(number, handler)


def exit_code_of(work: Callable[[], int], interrupted: str) -> int:
    """The exit code of a command's work that can be stopped; its errors in one line. interrupted: what is said then."""
    code = 130
    try:
        with stoppable():
            code = work()
            sys.stdout.flush()
            return code
    except CurationError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        print(f"interrupted; {interrupted}", file=sys.stderr)
        return interrupt.exit_code if isinstance(interrupt, Stopped) else 130
    except OSError as error:
        if error.filename is not None or error.errno not in _OF_STREAMS:
            raise
        drop(sys.stdout)
        if error.errno == errno.EPIPE:
            return code
        print(f"error: output can't be written: {error.strerror}", file=sys.stderr)
        return StorageError.exit_code


def _end(asked: list[int]) -> None:
    if asked:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(128 + asked[0])


def _leave(number: int) -> None:
    """End without another step. What is journalled or committed is on disk already."""
    print("interrupted at once; run the same command again", file=sys.stderr, flush=True)
    os._exit(128 + number)
