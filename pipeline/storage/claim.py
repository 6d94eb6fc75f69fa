"""One run at a time in a remote folder, and no manifest over another's: objects put on the condition of what is there.

The claim is `work/run.owner`, an object that names host and process. The system doesn't free it when its owner dies: a dead
process of this host is taken over from, one of another host has to be told dead by a person, who deletes the object.
"""

from __future__ import annotations

import os
import re
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pipeline.errors import StorageError, StoreUnreachable, UsageError
from pipeline.storage.location import journal_of
from pipeline.storage.remote import RemotePath

# The version of the manifest that stood when this process claimed a folder (None: there was none), by the folder.
_found: dict[RemotePath, str | None] = {}


@contextmanager
def claim(out: RemotePath, manifest: str, warn: Callable[[str], None]) -> Iterator[None]:
    """Hold the folder. manifest: the name of its manifest, which nobody else may replace meanwhile.

    Raises UsageError when nothing can be put there, StorageError when another run holds it, or the store fails later.
    """
    owner = out / "work" / "run.owner"
    # The second line tells processes of the same number in containers of the same name apart.
    mine = f"process {os.getpid()} on {socket.gethostname()}\n{uuid.uuid4().hex}\n"
    try:
        _take(out, owner, mine, warn)
        _found[out] = (out / manifest).version()
        if not journal_of(out).exists() and (out / "work" / "plan.json").exists():
            warn(
                f"the journal of {out} is not on this machine ({journal_of(out)} is missing): answers of unfinished shards "
                "are paid again, and a budget counts from nothing"
            )
    except (StoreUnreachable, OSError) as error:
        raise UsageError(f"output folder {out}: can't be used ({error}); or choose another --out") from error
    try:
        yield
    except StoreUnreachable as error:
        raise StorageError(str(error)) from error
    finally:
        with suppress(StorageError, OSError):
            if owner.read_text() == mine:
                owner.unlink()


def replace_manifest(path: RemotePath, data: bytes) -> None:
    """Put a manifest: the first only where none is, a later one only over that which stood when the run began.

    Raises StorageError when another's is there: nothing of it was written over.
    """
    try:
        _found[path.parent] = path.put(data, over=_found.get(path.parent))
    except FileExistsError:
        raise StorageError(
            f"{path}: another run has published here meanwhile, and its manifest stands; look at it, then run again to "
            "publish over it, or choose another --out"
        ) from None


def _take(out: RemotePath, owner: RemotePath, mine: str, warn: Callable[[str], None]) -> None:
    with suppress(FileExistsError):
        owner.put(mine.encode(), over=None)
        return
    version, other = owner.version(), owner.read_text(errors="replace").partition("\n")[0]
    named = re.fullmatch(r"process (\d+) on (.+)", other)
    if not named or named[2] != socket.gethostname() or _alive(int(named[1])):
        raise StorageError(
            f"{out}: in use by {other}; wait for it, stop it, or choose another --out. If it no longer runs, delete {owner}"
        )
    try:
        owner.put(mine.encode(), over=version)
    except FileExistsError:
        raise StorageError(f"{out}: in use by another run, which began just now; choose another --out") from None
    warn(f"taking over {out} from {other}, which ended without tidying up; finished work is kept")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
