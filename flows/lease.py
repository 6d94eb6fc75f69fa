"""How the workers of a standing cluster learn that their run has ended, however it did: from a file beside the stage files.

The flow's process writes `work/run.alive` every second while shards are out, and removes it at the end. A worker that sees
it gone, another run's, or unchanged for half a minute stops its calls: a cancelled or killed run pays for nothing more, and
the run that resumes it has the folder to itself.
"""

import itertools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prefect.runtime import flow_run

from pipeline.config.settings import CurationConfig
from pipeline.errors import StorageError
from pipeline.models import event_loop
from pipeline.run.progress import repeating
from pipeline.run.shards import context_of, forget_contexts
from pipeline.storage.atomic import write_text

_NAME = "run.alive"
_EVERY_S = 1.0
_SILENCE_S = 30.0

# By folder: whose shards this process worked on last.
_latest: dict[Path, str] = {}
_latest_lock = threading.Lock()


@contextmanager
def held(config: CurationConfig) -> Iterator[str | None]:
    """Keep the lease for as long as the block runs; yields its name. None with threads, which end with their process."""
    if config.run.runner == "threads":
        yield None
        return
    # A flow run that Prefect starts a second time is another run to workers that are still at the first.
    run, beats = f"{flow_run.id}/{os.getpid()}", itertools.count(1)
    path = config.out / "work" / _NAME
    write_text(path, f"{run} 0", private=True)

    def renew() -> None:
        # A full disk is noticed by the stages.
        with suppress(Exception):
            write_text(path, f"{run} {next(beats)}", private=True)

    try:
        with repeating(renew, _EVERY_S):
            yield run
    finally:
        with suppress(OSError, StorageError):
            path.unlink()


@contextmanager
def obeyed(config: CurationConfig, run: str | None) -> Iterator[None]:
    """Stop this process's calls, and its next stage, when the run ends before the block does."""
    if run is None:
        yield
        return
    # A worker outlives runs: the journal and the money that it knows from an earlier one may be out of date.
    with _latest_lock:
        if _latest.get(config.out) != run:
            forget_contexts()
            _latest[config.out] = run
    context = context_of(config)
    last, since = "", time.monotonic()

    def look() -> None:
        nonlocal last, since
        content = last
        # A network disk may fail for a moment.
        with suppress(OSError, StorageError):
            path = context.work / _NAME
            content = path.read_text("utf-8") if path.exists() else ""
        if content != last:
            last, since = content, time.monotonic()
        if not content.startswith(f"{run} ") or time.monotonic() - since > _SILENCE_S:
            context.stopped.set()
            event_loop.cancel_all()

    with repeating(look, _EVERY_S):
        yield
