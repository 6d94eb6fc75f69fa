"""How a command ends: its exit code, its errors in one line, Ctrl-C and SIGTERM.

The first signal ends the run in order: calls in flight are cancelled, received answers are journalled, the lock is released.
A second one, or four seconds, ends it at once, since what a stage computes can't be stopped. Either can be resumed. Nothing is
raised from a handler: it may run inside a callback of the interpreter, which would swallow that.
"""

import atexit
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from pipeline.cli.console import discard
from pipeline.errors import CurationError, StorageError, UsageError
from pipeline.storage import stopping
from pipeline.storage.stopping import Stopped
from pipeline.text import shown, visible

_PATIENCE_S = 4.0
# A pager was left, or the disk that standard output goes to is full.
_STREAM_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EIO)
# What the system says of a path that the user named.
_BAD_PATHS = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES)


@contextmanager
def stoppable(interrupted: str) -> Iterator[None]:
    """Request the end of the process at the first signal. In other threads of a process: no effect."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if stopping.requested():
            _leave(number, interrupted)
        stopping.request(number)
        threading.Thread(target=_see_off, args=[number, interrupted], daemon=True).start()

    stopping.forget()
    # Runs when all threads have ended, the journal's among them, and after whatever is registered later.
    atexit.register(_end)
    handlers = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        # After a signal the process ends: a second Ctrl-C counts until the interpreter is gone.
        if not stopping.requested():
            for number, handler in handlers.items():
                signal.signal(number, handler)


def exit_code_of(work: Callable[[], int], interrupted: str) -> int:
    """The exit code of a command's work. interrupted: what the user reads after a signal."""
    code = 130
    try:
        with stoppable(interrupted):
            code = work()
            sys.stdout.flush()
            if code == 0:
                stopping.check()
            return code
    except (CurationError, KeyboardInterrupt) as error:
        return print_error(error, interrupted)
    except BaseException as error:
        # Whatever a library made of the signal, or of being cancelled.
        if number := stopping.requested():
            return print_error(Stopped(number), interrupted)
        if not isinstance(error, OSError):
            raise
        return _refused_by_system(error, code)


def _refused_by_system(error: OSError, code: int) -> int:
    """Say which path the system refuses, or that standard output is gone; returns the exit code."""
    if error.filename is not None:
        print(f"error: {shown(error.filename)}: {error.strerror}", file=sys.stderr)
        return UsageError.exit_code if error.errno in _BAD_PATHS else StorageError.exit_code
    if error.errno not in _STREAM_ERRORS:
        raise error
    discard(sys.stdout)
    if error.errno == errno.EPIPE:
        return code
    print(f"error: output can't be written: {error.strerror}", file=sys.stderr)
    return StorageError.exit_code


def print_error(error: BaseException, interrupted: str) -> int:
    """Print why a command ended, on one line; returns the exit code."""
    text = f"error: {visible(str(error))}" if isinstance(error, CurationError) else f"interrupted; {interrupted}"
    print(text, file=sys.stderr)
    return int(getattr(error, "exit_code", 130))


def _end() -> None:
    """After a signal, skip the interpreter's own teardown, which takes a second and more."""
    if number := stopping.requested():
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(128 + number)


def _see_off(number: int, interrupted: str) -> None:
    stopping.wake()
    time.sleep(_PATIENCE_S)
    _leave(number, interrupted)


def _leave(number: int, interrupted: str) -> None:
    """End without another step. What is journalled or committed is on disk already."""
    print(f"interrupted at once; {interrupted}", file=sys.stderr, flush=True)
    os._exit(128 + number)
