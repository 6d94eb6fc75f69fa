"""One run at a time in an output folder."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.dataset.manifest import NAME
from pipeline.errors import StorageError, StoreUnreachable, UsageError
from pipeline.schema import STAGES
from pipeline.storage.atomic import TEMPORARY
from pipeline.storage.claim import claim
from pipeline.storage.location import journal_of, local_side
from pipeline.storage.remote import RemotePath

_OURS = re.compile(rf"(train-\d{{5}}-of-\d{{5}}|{'|'.join(STAGES)})(-[0-9a-f]{{8}})?\.parquet|{re.escape(TEMPORARY)}.*")


@contextmanager
def run_lock(out: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Hold `work/run.lock`, which the system frees however the process ends; the text in it says who holds it.

    For a remote folder the lock on this machine comes first, then the claim in the store (claim.py).

    Raises UsageError when the folder can't be written or has somebody else's files where a publication would put its own,
    StorageError when another run holds it.
    """
    work = local_side(out / "work")
    owner = work / "run.owner"
    try:
        with suppress(StoreUnreachable):  # of which the claim tells
            _check_ours(out)
        work.mkdir(parents=True, exist_ok=True)
        lock = FileLock(work / "run.lock")
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
        except OSError as error:
            raise _unwritable(out, work, error) from None
        with claim(out, NAME, warn) if isinstance(out, RemotePath) else nullcontext():
            yield
    finally:
        with suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()


def _check_ours(out: Path) -> None:
    """A folder is this program's when it has a manifest, or a run, of whatever command, has begun in it.

    Files by the names that a publication gives are taken for its leftovers.
    """
    begun = (out / NAME, out / "work" / "plan.json", local_side(out / "work") / "run.lock", journal_of(out))
    if any(path.exists() for path in begun):
        return
    found = [out / name for name in ("README.md", "report.html") if (out / name).exists()]
    found += [
        path for name in ("data", "rejected") for path in (out / name).glob("*") if not _OURS.fullmatch(path.name)
    ]
    if found:
        raise UsageError(
            f"output folder {out}: {found[0]} is not this program's, and would be lost; choose another --out"
        )


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
