"""One run at a time in an output folder, and no manifest written over another run's.

Locally the system's file lock `work/run.lock` is held; the system frees it however the process ends. In a store the object
`work/run.owner` is put only where there is none. It names host and process, and stays when its owner dies: a dead process of
this host is taken over from; for one of another host a person must delete the object.
"""

import os
import re
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.errors import StorageError, StoreUnreachable, UsageError
from pipeline.storage.atomic import private_folder, write_text
from pipeline.storage.location import MANIFEST, journal_of, local_side
from pipeline.storage.ours import check_ours
from pipeline.storage.remote import RemotePath

Warn = Callable[[str], None]
# Per locked remote folder, the version of its manifest: at the time of locking, then of what this process put. None: none.
_manifest_versions: dict[RemotePath, str | None] = {}


@contextmanager
def run_lock(out: Path, warn: Warn) -> Iterator[None]:
    """Hold the output folder; the text of `work/run.owner` says who holds it.

    For a remote folder the lock on this machine comes first, then the object in the store.
    Raises UsageError when the folder can't be written or is somebody else's, StorageError when another run holds it.
    """
    work = local_side(out / "work")
    owner = work / "run.owner"
    lock = FileLock(work / "run.lock", mode=0o600)
    try:
        with suppress(StoreUnreachable):  # which _store_lock reports
            check_ours(out)
        private_folder(work)
        lock.acquire(timeout=0)
    except Timeout:
        raise StorageError(f"{out}: in use by {_read(owner)}; wait for it, stop it, or choose another --out") from None
    except OSError as error:
        raise _unwritable(out, work, error) from None
    try:
        if owner.exists() and not isinstance(out, RemotePath):
            warn(f"taking over {out} from {_read(owner)}, which ended without tidying up; finished work is kept")
        try:
            owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
            owner.chmod(0o600)
        except OSError as error:
            raise _unwritable(out, work, error) from None
        with _store_lock(out, warn) if isinstance(out, RemotePath) else nullcontext():
            yield
    finally:
        with suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()


def write_manifest(out: Path, text: str) -> None:
    """Write the manifest of the folder `out`; in a remote one only where there is none, or over the version when it was locked.

    Raises StorageError when another run's is there, which stays as it is.
    """
    path = out / MANIFEST
    if not isinstance(path, RemotePath):
        write_text(path, text)
        return
    try:
        _manifest_versions[path.parent] = path.put(text.encode(), over=_manifest_versions.get(path.parent))
    except FileExistsError:
        hint = "look at it, then run again to publish over it, or choose another --out"
        raise StorageError(
            f"{path}: another run has published here meanwhile, and its manifest stands; {hint}"
        ) from None


@contextmanager
def _store_lock(out: RemotePath, warn: Warn) -> Iterator[None]:
    """Hold a remote folder by an object in it. Raises UsageError when nothing can be put there, else StorageError."""
    owner = out / "work" / "run.owner"
    # The second line distinguishes processes with the same number in containers with the same name.
    mine = f"process {os.getpid()} on {socket.gethostname()}\n{uuid.uuid4().hex}\n"
    try:
        _put_owner(out, owner, mine, warn)
        _manifest_versions[out] = (out / MANIFEST).version()
        if not journal_of(out).exists() and (out / "work" / "plan.json").exists():
            warn(
                f"the journal of {out} is not on this machine ({journal_of(out)} is missing): answers of unfinished shards "
                "are paid again, and a budget counts what work/paid.json knows"
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


def _put_owner(out: RemotePath, owner: RemotePath, mine: str, warn: Warn) -> None:
    with suppress(FileExistsError):
        owner.put(mine.encode(), over=None)
        return
    version, other = owner.version(), owner.read_text(errors="replace").partition("\n")[0]
    if is_alive(other) is not False:
        raise StorageError(
            f"{out}: in use by {other}; wait for it, stop it, or choose another --out. If it no longer runs, delete {owner}"
        )
    try:
        owner.put(mine.encode(), over=version)
    except FileExistsError:
        raise StorageError(f"{out}: in use by another run, which began just now; choose another --out") from None
    warn(f"taking over {out} from {other}, which ended without tidying up; finished work is kept")


def is_alive(owner: str) -> bool | None:
    """Whether the process that a text of `run.owner` names still runs; None where this machine can't tell."""
    named = re.fullmatch(r"process (\d+) on (.+)", owner)
    if not named or named[2] != socket.gethostname():
        return None
    try:
        os.kill(int(named[1]), 0)
    except (OSError, OverflowError) as error:
        return not isinstance(error, ProcessLookupError)
    return True


def _unwritable(out: Path, work: Path, error: OSError) -> UsageError:
    why = f"can't be written ({error.strerror or error})"
    if isinstance(out, RemotePath):
        return UsageError(f"{work}: {why}; the journal of {out} is kept there: set FIGA_STATE to another folder")
    return UsageError(f"output folder {out}: {why}; choose another --out")


def _read(owner: Path) -> str:
    try:
        return owner.read_text("utf-8")
    except (OSError, ValueError):
        return "another process"
