"""Files appear whole or not at all.

Write to a temporary name in the same folder → fsync → rename → fsync of the folder. After a crash at any point the target
holds its old bytes or its new ones. A temporary file (`.tmp-…`) may stay after kill −9: it is never read, and the next run
removes it. A remote file is written on this machine and put in one piece, because stores have no rename.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import StorageError
from pipeline.storage.location import state_folder
from pipeline.storage.remote import RemotePath

TEMPORARY = ".tmp-"
_ABANDONED_S = 86_400
_UPLOADS = "uploads"


@contextmanager
def replacing(path: Path, *, choose_path: Callable[[Path], Path] | None = None) -> Iterator[Path]:
    """Yield a temporary path; when the block succeeds, its file replaces `path`.

    choose_path: returns, for the finished temporary file, the path to replace instead of `path`.
    Raises StorageError naming `path` when the disk refuses; the target is then unchanged and the temporary file gone.
    """
    name = f"{TEMPORARY}{os.getpid()}-{path.name}"
    remote = isinstance(path, RemotePath)
    temporary = state_folder() / _UPLOADS / f"{name}-{uuid.uuid4().hex}" if remote else path.with_name(name)
    try:
        with _refusals(path, "written"):
            temporary.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _commit(temporary, choose_path(temporary) if choose_path else path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _commit(temporary: Path, target: Path) -> None:
    if isinstance(target, RemotePath):
        target.upload(temporary)
        return
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove(path: Path) -> None:
    """Delete a file that may exist. Raises StorageError naming it when the disk refuses."""
    with _refusals(path, "removed"):
        path.unlink(missing_ok=True)


def move(path: Path, target: Path) -> None:
    """Rename a file into another folder of the same disk. Raises StorageError naming it when the disk refuses."""
    with _refusals(path, f"moved to {target.parent}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)


@contextmanager
def _refusals(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"{path}: can't be {what}: {error.strerror or error}; free the cause and run again"
        raise StorageError(message) from error


def remove_temporaries(folder: Path) -> None:
    """Delete what killed runs left in an output folder."""
    if not isinstance(folder, RemotePath):
        for leftover in folder.rglob(f"{TEMPORARY}*"):
            remove(leftover)
        return
    # All runs on this machine share this folder: only files a day old are certainly abandoned.
    for leftover in (state_folder() / _UPLOADS).glob(f"{TEMPORARY}*"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _ABANDONED_S:
                leftover.unlink()
