"""Whether the workers of a standing cluster can share one journal: by trying the disk's locks, not by hope."""

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from pipeline.config.settings import CurationConfig
from pipeline.errors import ConfigError
from pipeline.models.journal_files import locks_hold
from pipeline.storage.remote import RemotePath


@task(name="probe", task_run_name="probe", cache_policy=NO_CACHE, persist_result=False)
def try_lock(path: Path) -> bool | None:
    """Run by a worker while the flow's process holds the lock."""
    return locks_hold(path)


def workers_journal(config: CurationConfig, warn: Callable[[str], None]) -> str:
    """`shared`, or `own` where the locks of the output folder's disk don't hold. ConfigError where a worker doesn't see it."""
    run, out = config.run, config.out
    if run.journal != "auto" or run.runner == "threads" or not run.runner_address or isinstance(out, RemotePath):
        return "shared" if run.journal == "auto" else run.journal
    path = (out / "work" / "locks.db").absolute()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        tries = [try_lock.submit(path) for _ in range(run.workers)]
        held = [each.result() for each in tries]
    with suppress(OSError):
        path.unlink()
    if None in held:
        where = f"a worker at {run.runner_address} finds no {path.parent}"
        raise ConfigError(f"output.dir {out}: {where}; it must be on a disk that all machines share, at the same path")
    if all(held):
        return "shared"
    warn(f"{out}: locks of its disk don't hold between machines, so each worker keeps a journal of its own")
    return "own"
