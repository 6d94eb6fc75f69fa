"""Files appear whole or not at all.

Write to a temporary name in the same folder → fsync → rename → fsync of the folder. After a crash at any point the target
holds its old bytes or its new ones. A temporary file (`.tmp-…`) may stay after kill −9: it is never read, and the next run
removes it. A remote file is written on this machine and put in one piece, because stores have no rename.
"""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import StorageError
from pipeline.storage import stopping
from pipeline.storage.location import state_folder
from pipeline.storage.remote import RemotePath

TEMPORARY = ".tmp-"
UPLOADS = "uploads"


@contextmanager
def replacing(
    path: Path, *, choose_path: Callable[[Path], Path] | None = None, private: bool = False
) -> Iterator[Path]:
    """Yield a temporary path; when the block succeeds, its file replaces `path`.

    choose_path: returns, for the finished temporary file, the path to replace instead of `path`. private: whatever the umask,
    only the user can read the file and its folder.
    Raises StorageError naming `path` when the disk refuses; the target is then unchanged and the temporary file gone.
    """
    stopping.check()
    name = f"{TEMPORARY}{os.getpid()}-{path.name}"
    remote = isinstance(path, RemotePath)
    temporary = state_folder() / UPLOADS / f"{name}-{uuid.uuid4().hex}" if remote else path.with_name(name)
    try:
        with _refusals(path, "written"):
            if private or remote:
                private_folder(temporary.parent)
            temporary.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if private:
                temporary.chmod(0o600)
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


def private_folder(folder: Path) -> None:
    """Create a folder that only the user can enter, or make it so."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Another user's, which a group shares, stays as it is.
    with suppress(PermissionError):
        folder.chmod(0o700)


def private_file(path: Path) -> None:
    """Create a file, and its folder, that only the user can read, or make them so; its content stays."""
    private_folder(path.parent)
    path.touch(mode=0o600)
    with suppress(PermissionError):
        path.chmod(0o600)


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    with replacing(path, private=private) as temporary:
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
