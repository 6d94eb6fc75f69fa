"""Files appear whole or not at all.

write to a temporary name in the same folder → flush → fsync → rename → fsync of the folder. After a crash at any point the
target holds its old bytes or its new ones. What is not promised: that a leftover temporary file never stays after kill −9
(it is named `.tmp-…`, never read, and removed by the next run). A remote file is written on this machine and put in one
piece: stores have no rename, and need none.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import StorageError
from pipeline.storage.location import scratch
from pipeline.storage.remote import RemotePath

TEMPORARY = ".tmp-"
_FORGOTTEN_S = 86_400


@contextmanager
def replacing(path: Path, *, named: Callable[[Path], Path] | None = None) -> Iterator[Path]:
    """Yield a temporary path; when the block ends well, its file takes the place of `path`.

    named: gives, from the finished temporary file, the path to take in place of `path`.
    Raises StorageError naming `path` when the disk refuses; the target is then untouched and the temporary file gone.
    """
    name = f"{TEMPORARY}{os.getpid()}-{path.name}"
    temporary = scratch() / f"{name}-{uuid.uuid4().hex}" if isinstance(path, RemotePath) else path.with_name(name)
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        target = named(temporary) if named else path
        if isinstance(target, RemotePath):
            target.upload(temporary)
            return
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
        _fsync_folder(path.parent)
    except OSError as error:
        raise _refused(path, "written", error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove(path: Path) -> None:
    """Delete a file that may be there. Raises StorageError naming it when the disk refuses."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _refused(path, "removed", error) from error


def move(path: Path, target: Path) -> None:
    """Rename a file into another folder of the same disk. Raises StorageError naming it when the disk refuses."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    except OSError as error:
        raise _refused(path, f"moved to {target.parent}", error) from error


def _refused(path: Path, what: str, error: OSError) -> StorageError:
    return StorageError(f"{path}: can't be {what}: {error.strerror or error}; free the cause and run again")


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporaries(folder: Path) -> None:
    if isinstance(folder, RemotePath):
        # All runs of this machine share the place: what is a day old is nobody's.
        for leftover in scratch().glob(f"{TEMPORARY}*"):
            with suppress(OSError):
                if time.time() - leftover.stat().st_mtime > _FORGOTTEN_S:
                    leftover.unlink()
        return
    for leftover in folder.rglob(f"{TEMPORARY}*"):
        remove(leftover)
