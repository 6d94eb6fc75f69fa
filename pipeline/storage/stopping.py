"""The process was asked to end. A signal's handler only notes that here: what it raised could be lost in any callback.

Work that takes long looks between its steps; what waits for others is woken. Knows no signal and no command.
"""

import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

_requested: list[int] = []
_waiting: list[Callable[[], object]] = []


class Stopped(KeyboardInterrupt):
    """The process was asked to end. exit_code: 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


def request(number: int) -> None:
    """Note a signal's number. Takes no lock, so that a handler may call it wherever the main thread is."""
    _requested.append(number)


def forget() -> None:
    """For the next command of the same process."""
    _requested.clear()


def requested() -> int | None:
    """The number of the first signal; None without one."""
    return _requested[0] if _requested else None


def check() -> None:
    """Raise Stopped in the main thread when the process was asked to end; other threads' work is ended by it."""
    if _requested and threading.current_thread() is threading.main_thread():
        raise Stopped(_requested[0])


def wake() -> None:
    """Wake what waits. Not for a handler: it takes locks."""
    for woken in tuple(_waiting):
        with suppress(Exception):
            woken()


def run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
    """As `subprocess.run`, and the child ends when this process is asked to."""
    with subprocess.Popen(command, **options) as child:
        try:
            with waking(child.terminate):
                out, errors = child.communicate()
        except BaseException:
            child.kill()
            raise
    return subprocess.CompletedProcess(command, child.returncode, out, errors)


@contextmanager
def waking(wake: Callable[[], object]) -> Iterator[None]:
    """Have `wake` called, in another thread, when the process is asked to end while the block waits; then raise Stopped."""
    check()
    _waiting.append(wake)
    try:
        yield
    except Exception:
        check()
        raise
    finally:
        _waiting.remove(wake)
    check()
