"""work/paid.json: how many answers the journal had, and what they cost, so that a journal that lost some of them is noticed.

A journal whose log (`journal.db-wal`) is gone is sound and poorer: nothing in the file itself shows it.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import StorageError
from pipeline.models import event_loop
from pipeline.models.journal import Journal
from pipeline.storage.atomic import write_text

_NAME = "paid.json"
# Sums over a million answers take a tenth of a second.
_SHARE_OF_TIME = 0.01


class Paid:
    """The record of one journal, in the work folder that its run has."""

    def __init__(self, work: Path, journal: Journal) -> None:
        self._path, self._journal = work / _NAME, journal
        self._lock = threading.Lock()
        self._next = 0.0

    def record(self, *, now: bool = False) -> None:
        """Write what the journal has; not `now`: only if that takes at most a hundredth of the time. Threads may call it."""
        with self._lock:
            start = time.monotonic()
            if now or start >= self._next:
                write_text(self._path, json.dumps(self._journal.paid()), private=True)
                self._next = time.monotonic() + (time.monotonic() - start) / _SHARE_OF_TIME

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record at the block's end, however it ends."""
        try:
            yield
        finally:
            self.record(now=True)

    def missing(self) -> str | None:
        """The warning about answers that the journal had and has not; their cost counts as spent from then on."""
        known: dict[str, list[int]] = {}
        with suppress(OSError, ValueError, TypeError, AttributeError):
            content = json.loads(self._path.read_text("utf-8"))
            known = {stage: [int(answers), int(money)] for stage, (answers, money) in content.items()}
        paid = self._journal.paid()
        answers, lost = 0, 0
        for stage, (number, money) in known.items():
            has, spent = paid.get(stage, [0, 0])
            answers += max(0, number - has)
            if money > spent:
                lost += money - spent
                event_loop.run(self._journal.charge(stage, "", "lost", (money - spent) / 1e12))
        if not answers:
            return None
        with suppress(StorageError):
            self.record(now=True)
        return (
            f"{self._journal.path}: {answers} answers that were paid are no longer in it (was its log, journal.db-wal, "
            f"deleted?). What unfinished shards need of them is paid again, ${lost / 1e12:.4f} at most; --budget counts "
            "the lost ones as spent"
        )
