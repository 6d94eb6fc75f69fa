"""The memory of paid work: every accepted answer of a language model, in one SQLite file.

An answer is keyed by the sha256 of everything sent and written before it is used. The promise: no accepted answer is lost
once journalled; after kill −9 at most the calls in flight are paid twice. WAL with synchronous=NORMAL keeps that promise
for a killed process; a power cut may take back the last moments, never damage the file. SQLite's WAL is for local disks only:
processes on several machines share a file `across_machines`, with the older rollback journal, which needs a network file
system whose locks work.

A damaged file is set aside when it is opened, never overwritten: `journal.db.damaged-<time>`, and a fresh one is begun.
"""

from __future__ import annotations

import asyncio
import atexit
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from pipeline.errors import StorageError
from pipeline.models import journal_file, journal_records, journal_tables
from pipeline.models.answer import Answer
from pipeline.models.journal_records import Record, call_number, sorted_out
from pipeline.models.known import Known

__all__ = ["Answer", "Journal", "call_number"]

# So many answers may be out of the file's index, and be found by memory alone. About 10 MB.
_UNFOLDED = 32_768
_LOG, _LONGEST_LOG = 8_000, 64_000


class Journal:
    """Answers by key. Threads may share one; processes may open the same file, unless this one writes `alone`.

    `warning` says what was wrong with the file, if it had to be set aside. alone: no other process writes answers while this
    one does, so that it knows by memory which keys have none, and which are new. Raises StorageError.
    """

    def __init__(self, path: Path, *, across_machines: bool = False, alone: bool = False) -> None:
        self.path = path
        self._mode = "DELETE" if across_machines else "WAL"
        self.warning: str | None = None
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._gathering = threading.Lock()
        self._pending: list[Record] = []
        self._commit: asyncio.Future[None] | None = None
        self._writer = ThreadPoolExecutor(1, "journal")
        # Answers of cancelled calls are kept as well, also when the interpreter ends before the event loop's next turn.
        atexit.register(_keep_pending, weakref.ref(self))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                journal_file.check(path)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                self.warning = journal_file.set_aside(path, error)
            self._most_recent = _UNFOLDED if alone else 0
            self._db = self._open()
            # Readers of a WAL don't wait for its writer, as long as they have a connection of their own.
            self._reader = self._open()
            journal_tables.prepare(self._db)
            # The rows of answers that the file's index doesn't have yet.
            self._recent: dict[str, int] = {}
            self._known = Known(journal_tables.prefixes(self._reader)) if alone else None
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"{path}: the journal of paid answers can't be opened: {error}") from error

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=60, check_same_thread=False, isolation_level=None)
        # Processes that make the file at the same moment: this one statement doesn't wait for the others' lock.
        for attempt in Retrying(
            retry=retry_if_exception_type(sqlite3.OperationalError),
            wait=wait_fixed(0.05),
            stop=stop_after_delay(10),
            reraise=True,
        ):
            with attempt:
                db.execute(f"PRAGMA journal_mode={self._mode}")
        db.execute(f"PRAGMA synchronous={'NORMAL' if self._mode == 'WAL' else 'FULL'}")
        # In pages of 4 kB. Every commit changes the last ones: the log takes many changes of a page before the file does. Who
        # is alone lets it take what is new until the next fold, which has a thread for that.
        db.execute(f"PRAGMA wal_autocheckpoint={_LONGEST_LOG if self._most_recent else _LOG}")
        return db

    def get(self, key: str) -> Answer | None:
        if self._known and key not in self._known:
            return None
        with self._guard(self._reader, self._reading) as db:
            text = journal_tables.get(db, key, self._recent.get(key))
        try:
            return Answer.from_json(text) if text else None
        except (ValueError, TypeError) as error:
            raise StorageError(
                f"{self.path}: the answer {key[:16]} is damaged ({error}); run again: the journal will be set aside"
            ) from error

    def put(self, key: str, stage: str, model: str, answer: Answer, cost_usd: float) -> None:
        """Keep an answer in place of the one that `key` may have: both were paid for. On disk when this returns."""
        self._write([journal_records.answered(key, stage, model, answer, cost_usd, None, None)])

    async def begin(self, number: int, stage: str, model: str, most_usd: float) -> None:
        """Note a call that is about to be made as one that ended without a word, at its most: killed now, it did.

        `keep` or `charge` with that number, one of `call_number`, put what became of it in its place.
        """
        await self._gather(journal_records.charged(stage, model, "interrupted", most_usd, False, number=number))

    async def keep(
        self,
        key: str,
        stage: str,
        model: str,
        answer: Answer,
        cost_usd: float,
        *,
        custom_id: str | None = None,
        began: int | None = None,
    ) -> None:
        """`put` for many callers at a time: what arrives while a commit runs is in the next one, together.

        custom_id: of the request in a batch that this pays for; began: the number that it was begun with.
        """
        await self._gather(journal_records.answered(key, stage, model, answer, cost_usd, custom_id, began))

    async def charge(
        self,
        stage: str,
        model: str,
        outcome: str,
        cost_usd: float,
        *,
        certain: bool = True,
        custom_id: str | None = None,
        began: int | None = None,
    ) -> None:
        """Note a call that gave no answer. `certain`: False when nothing tells whether, and how much, it was billed."""
        record = journal_records.charged(stage, model, outcome, cost_usd, certain)
        await self._gather(record._replace(custom_id=custom_id, began=began))

    async def _gather(self, record: Record) -> None:
        # A caller that is cancelled must not take the others' commit with it.
        await asyncio.shield(self._enqueue(record))

    def _enqueue(self, record: Record) -> asyncio.Future[None]:
        """The commit that will hold the record: what arrives until the event loop's next turn is in it together."""
        with self._gathering:
            self._pending.append(record)
            if self._commit is None:
                loop = asyncio.get_running_loop()
                self._commit = loop.create_future()
                loop.call_soon(self._begin, self._commit)
            return self._commit

    def _begin(self, commit: asyncio.Future[None]) -> None:
        """Commit what is pending: at once if that is a matter of microseconds, else in a thread.

        To hand a few answers to a thread takes three times as long as to write them; those who wait for them are all that the
        event loop could do meanwhile. Who is not alone with the file may have to wait for others.
        """
        with self._gathering:
            few = len(self._recent) + len(self._pending) <= self._most_recent and not self._lock.locked()
        if few:
            try:
                self._flush()
            except Exception as error:
                _end(commit, error)
            else:
                _end(commit, None)
            return
        loop, flushed = commit.get_loop(), self._writer.submit(self._flush)
        flushed.add_done_callback(lambda done: loop.call_soon_threadsafe(_end, commit, done.exception()))

    def _flush(self) -> None:
        with self._gathering:
            records, self._pending, self._commit = self._pending, [], None
        if records:
            self._write(records)

    def _write(self, records: list[Record]) -> None:
        began = [record.began for record in records if record.began is not None]
        collected = [record.custom_id for record in records if record.custom_id]
        answers, charges = sorted_out(records)
        with self._guard(self._db, self._lock) as db:
            new = self._known is not None and self._known.add(answers)
            fold = len(self._recent) + len(answers) > self._most_recent
            # A few new answers alone are one statement, and with that a transaction. After each statement the thread waits for
            # the interpreter.
            single = new and len(answers) <= journal_tables.AT_ONCE and not (fold or charges or began or collected)
            with nullcontext() if single else journal_tables.transaction(db):
                journal_tables.settle(db, began, charges, collected)
                for key, place in ({} if new else self._standing(db, answers)).items():
                    journal_tables.replace(db, place, answers.pop(key))
                places = journal_tables.append(db, list(answers.values()))
                if fold:
                    journal_tables.fold(db)
            if self._known is not None:
                self._recent.update(zip(answers, places, strict=True))
            # Who doesn't find a key here any more finds it in the index.
            if fold:
                self._recent.clear()
                if self._most_recent:
                    # Not done, it is done by a later commit.
                    with suppress(sqlite3.Error):
                        db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _standing(self, db: sqlite3.Connection, keys: Iterable[str]) -> dict[str, int]:
        """The rows of those keys that have an answer already."""
        if self._known is None:
            return journal_tables.find(db, keys, unfolded=True)
        recent = {key: self._recent[key] for key in keys if key in self._recent}
        return recent | journal_tables.find(db, [key for key in keys if key not in recent], unfolded=False)

    def spent(self) -> float:
        """US dollars paid for everything in this journal, and those that may have been."""
        return sum(pico for _, pico in self._totals().values()) / 1e12 + self._charged("true")

    def uncertain(self) -> float:
        """The part of `spent` for calls that ended without a word of their cost, each counted at its most."""
        return self._charged("NOT certain")

    def money(self) -> dict[str, tuple[int, float]]:
        """Answers and US dollars by stage; what is uncertain is left out."""
        charged = dict(self._rows("SELECT stage, total(cost_usd) FROM charges WHERE certain GROUP BY stage"))
        answered = self._totals()
        return {
            stage: (count, pico / 1e12 + charged.get(stage, 0.0))
            for stage in sorted({*answered, *charged})
            for count, pico in [answered.get(stage, (0, 0))]
        }

    def calls(self) -> dict[str, int]:
        """Answers by stage."""
        return {stage: calls for stage, (calls, _) in self.money().items() if calls}

    def made(self) -> int:
        """All calls, those without an answer included."""
        ((charges,),) = self._rows("SELECT count(*) FROM charges")
        return sum(answers for answers, _ in self._totals().values()) + int(charges)

    def _charged(self, which: str) -> float:
        ((cost,),) = self._rows(f"SELECT total(cost_usd) FROM charges WHERE {which}")
        return float(cost)

    def _totals(self) -> dict[str, tuple[int, int]]:
        with self._guard(self._reader, self._reading) as db:
            return journal_tables.spent(db)

    def _rows(self, query: str) -> list[Any]:
        with self._guard(self._reader, self._reading) as db:
            return db.execute(query).fetchall()

    def close(self) -> None:
        self._writer.shutdown()
        self._flush()
        with self._lock, self._reading:
            self._reader.close()
            self._db.close()

    @contextmanager
    def _guard(self, db: sqlite3.Connection, lock: threading.Lock) -> Iterator[sqlite3.Connection]:
        try:
            with lock:
                yield db
        except sqlite3.Error as error:
            raise StorageError(
                f"{self.path}: the journal can't be used: {error}; free the cause and run again"
            ) from error


def _keep_pending(journal: weakref.ref[Journal]) -> None:
    if found := journal():
        with suppress(StorageError):
            found._flush()


def _end(commit: asyncio.Future[None], error: BaseException | None) -> None:
    if error:
        commit.set_exception(error)
    else:
        commit.set_result(None)
