"""Files appear whole or not at all.

write to a temporary name in the same folder → flush → fsync → rename → fsync of the folder. After a crash at any point the
target holds its old bytes or its new ones. What is not promised: that a leftover temporary file never stays after kill −9
(it is named `.tmp-…`, never read, and removed by the next run).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import StorageError

TEMPORARY = ".tmp-"


@contextmanager
def replacing(path: Path, *, named: Callable[[Path], Path] | None = None) -> Iterator[Path]:
    """Yield a temporary path; when the block ends well, its file takes the place of `path`.

    named: gives, from the finished temporary file, the path to take in place of `path`.
    Raises StorageError naming `path` when the disk refuses; the target is then untouched and the temporary file gone.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(named(temporary) if named else path)
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
    for leftover in folder.rglob(f"{TEMPORARY}*"):
        remove(leftover)
