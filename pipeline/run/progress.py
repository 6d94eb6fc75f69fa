"""How far each stage is, in small files: any process on any executor writes them, any display reads them."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path

from pipeline.storage.atomic import private_folder
from pipeline.storage.location import local_side

_EVERY_S = 0.3


@dataclass
class Counts:
    """Rows of one stage: done (rejected ones included), rejected, and planned so far."""

    done: int = 0
    rejected: int = 0
    total: int = 0


class StageProgress:
    """Counts the rows of one stage of one shard. May be called from any thread. Never raises: it is only a display."""

    def __init__(self, work: Path, stage: str, shard: int, total: int) -> None:
        self._path = local_side(work) / "progress" / stage / f"{shard:05d}.json"
        self._counts = Counts(total=total)
        self._lock = threading.Lock()
        self._written = 0.0
        with suppress(OSError):
            private_folder(self._path.parent.parent)
            private_folder(self._path.parent)
        self._write()

    def add(self, rows: int = 1, rejected: int = 0) -> None:
        with self._lock:
            self._counts.done += rows
            self._counts.rejected += rejected
            if time.monotonic() - self._written > _EVERY_S:
                self._write()

    def finish(self, rejected: int) -> None:
        with self._lock:
            self._counts.done = self._counts.total
            self._counts.rejected = rejected
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        temporary = self._path.with_suffix(".tmp")
        with suppress(OSError):
            temporary.write_text(json.dumps(vars(self._counts)))
            temporary.chmod(0o600)
            temporary.replace(self._path)


def forget_from(work: Path, shards: int) -> None:
    """Drop the progress of shards that an earlier, longer plan had."""
    for path in (local_side(work) / "progress").glob("*/*.json"):
        if path.stem.isdigit() and int(path.stem) >= shards:
            with suppress(OSError):
                path.unlink()


def read(work: Path) -> dict[str, Counts]:
    """Counts by stage, over all shards."""
    stages: dict[str, Counts] = {}
    for path in (local_side(work) / "progress").glob("*/*.json"):
        with suppress(OSError, ValueError, TypeError):
            counts = Counts(**json.loads(path.read_text()))
            stage = stages.setdefault(path.parent.name, Counts())
            stage.done += counts.done
            stage.rejected += counts.rejected
            stage.total += counts.total
    return stages


@contextmanager
def repeating(action: Callable[[], None], every_s: float) -> Iterator[None]:
    """Call `action` every `every_s` seconds, in a thread of its own, until the block ends."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(every_s):
            action()

    # Prefect's artifacts belong to the flow run of the context that creates them.
    thread = threading.Thread(target=copy_context().run, args=(repeat,), name="repeating", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
