"""One run at a time in an output folder."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.errors import StorageError, UsageError


@contextmanager
def run_lock(out: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Hold `work/run.lock`, which the system frees however the process ends; the text in it says who holds it.

    Raises UsageError when the folder can't be written, StorageError when another run holds it.
    """
    work = out / "work"
    owner = work / "run.owner"
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = FileLock(work / "run.lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise StorageError(f"{out}: in use by {_read(owner)}; wait for it, stop it, or choose another --out") from None
    except OSError as error:
        raise _unwritable(out, error) from None
    try:
        if owner.exists():
            warn(f"taking over {out} from {_read(owner)}, which ended without tidying up; finished work is kept")
        try:
            owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        except OSError as error:
            raise _unwritable(out, error) from None
        yield
    finally:
        with suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()


def _unwritable(out: Path, error: OSError) -> UsageError:
    return UsageError(f"output folder {out}: can't be written ({error.strerror or error}); choose another --out")


def _read(owner: Path) -> str:
    try:
        return owner.read_text("utf-8")
    except (OSError, ValueError):
        return "another process"
