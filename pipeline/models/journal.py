"""The journal of paid calls: every accepted answer of a language model, in one SQLite file.

    answers    one per key, the newest; the key is the sha256 of everything sent
    charges    calls without an answer, answers that were replaced, and calls in flight at their worst-case cost
    collected  requests of batches whose cost is in one of the two
    overruns   models whose servers billed above the limits of a call, and how many times as much

An answer is written before it is used. The promise: no accepted answer is lost once journalled; after kill −9 at most the
calls in flight are paid twice. WAL with synchronous=NORMAL keeps that promise for a killed process; a power cut may take back
the last moments, but never damages the file. SQLite's WAL is for local disks only: processes on several machines share a file
`across_machines`, with the older rollback journal, which needs a network file system whose locks work.

A damaged file is set aside when it is opened, never overwritten: `journal.db.damaged-<time>`, and a new one is begun.
"""

import asyncio
import itertools
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from pipeline.errors import StorageError
from pipeline.models.journal_files import gather, set_aside_if_damaged
from pipeline.models.request import Answer
from pipeline.storage.atomic import private_file

__all__ = ["Answer", "Journal", "Total", "dollars", "totals"]

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, stage TEXT NOT NULL, model TEXT NOT NULL, "
    "answer TEXT NOT NULL, cost_usd REAL NOT NULL, at REAL NOT NULL)",
    "CREATE TABLE IF NOT EXISTS charges (stage TEXT NOT NULL, model TEXT NOT NULL, outcome TEXT NOT NULL, "
    "cost_usd REAL NOT NULL, certain INTEGER NOT NULL, at REAL NOT NULL)",
    "CREATE TABLE IF NOT EXISTS collected (custom_id TEXT PRIMARY KEY)",
    "CREATE TABLE IF NOT EXISTS overruns (model TEXT PRIMARY KEY, times REAL NOT NULL)",
    # Covers the sums, which would read every answer's text without it.
    "CREATE INDEX IF NOT EXISTS money ON answers (stage, cost_usd)",
    # An earlier version kept its own index and sums in these, beside a table of answers without a primary key.
    *(f"DROP TABLE IF EXISTS {name}" for name in ("places", "totals", "folded")),
)
_FIND = "SELECT answer FROM answers WHERE key = ?"
_ANSWER = "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?)"
_REPLACE = "INSERT INTO charges SELECT stage, model, 'asked_again', cost_usd, 1, at FROM answers WHERE key = ?"
_CHARGE = "INSERT INTO charges (rowid, stage, model, outcome, cost_usd, certain, at) VALUES (?, ?, ?, ?, ?, ?, ?)"
_END_CHARGE = "DELETE FROM charges WHERE rowid = ?"
# Calls that ended without an answer, or are still in flight, may have been billed by as much more.
_RAISE = (
    "UPDATE charges SET cost_usd = cost_usd * max(1.0, ? / coalesce((SELECT times FROM overruns WHERE model = ?), 1.0)) "
    "WHERE model = ? AND outcome = 'interrupted'"
)
_OVERRUN = "INSERT INTO overruns VALUES (?, ?) ON CONFLICT DO UPDATE SET times = max(times, excluded.times)"
_COLLECT = "INSERT OR IGNORE INTO collected VALUES (?)"
# In whole picodollars, so that the sum is the same in whatever order calls end.
_SUMS = "count(*), sum(CAST(round(cost_usd * 1e12) AS INTEGER))"
_TOTALS = (
    f"SELECT stage, 'answers', {_SUMS} FROM answers GROUP BY stage UNION ALL "
    f"SELECT stage, iif(certain, 'charges', 'uncertain'), {_SUMS} FROM charges GROUP BY stage, certain ORDER BY stage"
)

_LOCKED = retry_if_exception_type(sqlite3.OperationalError)
_Write = tuple[str, tuple[object, ...]]


class Total(NamedTuple):
    """The sum of one stage's calls of one kind: `answers`, `charges`, or `uncertain`, charges that may not have been billed."""

    stage: str
    kind: str
    calls: int
    picodollars: int


def totals(db: sqlite3.Connection) -> list[Total]:
    """The sums of a journal's file, in the order of stages; also of a file that an earlier version wrote."""
    return [Total(*row) for row in db.execute(_TOTALS)]


def dollars(sums: Iterable[Total]) -> float:
    return sum(one.picodollars for one in sums) / 1e12


class Journal:
    """Answers by key, and the money spent. Processes may open the same file; a process writes from its one event loop.

    `warning`: what was wrong with the file, if it had to be set aside. Raises StorageError.
    """

    def __init__(self, path: Path, *, across_machines: bool = False, base: Path | None = None) -> None:
        """base: an older journal, which nobody writes meanwhile, to look for answers in."""
        self.path = path
        self._attached = bool(base and base.exists())
        self._mode = "DELETE" if across_machines else "WAL"
        self._gathering = threading.Lock()
        self._pending: list[list[_Write]] = []
        self._commit: asyncio.Future[None] | None = None
        # At the interpreter's end, Python waits until its threads have written what is pending.
        self._writer = ThreadPoolExecutor(1, "journal")
        self._reading = threading.Lock()
        try:
            self.warning = set_aside_if_damaged(path)
            # SQLite gives its log and its index of the log the same permissions.
            private_file(path)
            self._db = self._open()
            # Readers of a WAL don't wait for its writer, as long as they have a connection of their own.
            self._reader = self._open()
            _prepare(self._db)
            if base and self._attached:
                self._reader.execute("ATTACH ? AS base", (f"{base.absolute().as_uri()}?mode=ro&immutable=1",))
            elif not base:
                gather(path)
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"{path}: the journal of paid answers can't be opened: {error}") from error

    def _open(self) -> sqlite3.Connection:
        address = self.path.absolute().as_uri()
        db = sqlite3.connect(address, timeout=60, check_same_thread=False, isolation_level=None, uri=True)
        _set_mode(db, self._mode)
        db.execute(f"PRAGMA synchronous={'NORMAL' if self._mode == 'WAL' else 'FULL'}")
        # Each key changes another page of its index: a log of 32 MB takes several changes of a page before the file does.
        db.execute("PRAGMA wal_autocheckpoint=8000")
        return db

    def get(self, key: str) -> Answer | None:
        with self._explained(), self._reading:
            row = self._reader.execute(_FIND, (key,)).fetchone()
            if not row and self._attached:
                row = self._reader.execute(_FIND.replace("answers", "base.answers"), (key,)).fetchone()
        try:
            return Answer.from_json(row[0]) if row else None
        except (ValueError, TypeError) as error:
            raise StorageError(
                f"{self.path}: the answer {key[:16]} is damaged ({error}); run again: the journal will be set aside"
            ) from error

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
        """Keep an answer in place of the one that `key` may have: both were paid for. Journalled when this returns.

        custom_id: of the request in a batch that this pays for; began: the number of the call from `begin`.
        """
        row = (key, stage, model, answer.to_json(), cost_usd, time.time())
        await self._record([(_REPLACE, (key,)), (_ANSWER, row)], custom_id, began)

    async def note_overrun(self, model: str, times: float) -> None:
        """Note how many times the most that a call was allowed the model's server has billed; the highest number stays."""
        await self._record([(_RAISE, (times, model, model)), (_OVERRUN, (model, times))])

    async def begin(self, stage: str, model: str, most_usd: float) -> int:
        """Record a call at its worst-case cost before sending it, so that a crash leaves it charged.

        Returns the call's number: `keep` or `charge` with that number replaces this charge.
        """
        number = secrets.randbits(62)
        await self._record([(_CHARGE, (number, stage, model, "interrupted", most_usd, False, time.time()))])
        return number

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
        """Record a call without an answer. `certain`: False when it is unknown whether, and how much, it was billed."""
        row = (None, stage, model, outcome, cost_usd, certain, time.time())
        await self._record([(_CHARGE, row)], custom_id, began)

    async def _record(self, writes: list[_Write], custom_id: str | None = None, began: int | None = None) -> None:
        """Commit all of it: what arrives while a commit runs goes into the next one, together."""
        if began is not None:
            writes.append((_END_CHARGE, (began,)))
        if custom_id:
            writes.append((_COLLECT, (custom_id,)))
        with self._gathering:
            self._pending.append(writes)
            if self._commit is None:
                self._commit = asyncio.wrap_future(self._writer.submit(self._flush))
            commit = self._commit
        # A caller that is cancelled must not cancel the others' commit with it.
        await asyncio.shield(commit)

    def _flush(self) -> None:
        with self._gathering:
            records, self._pending, self._commit = self._pending, [], None
        self._write(records)

    def _write(self, records: list[list[_Write]]) -> None:
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            with self._db:
                for sql, values in itertools.chain.from_iterable(records):
                    self._db.execute(sql, values)

    def spent(self) -> float:
        """US dollars paid for everything in this journal, and those that may have been."""
        return dollars(self._totals())

    def uncertain(self) -> float:
        """The part of `spent` for calls of unknown cost, each counted at its worst case."""
        return dollars(total for total in self._totals() if total.kind == "uncertain")

    def money(self) -> dict[str, tuple[int, float]]:
        """Answers and US dollars by stage; what is uncertain is left out."""
        return {stage: (answers, picodollars / 1e12) for stage, (answers, picodollars) in self.paid().items()}

    def overruns(self) -> dict[str, float]:
        """By model, how many times the most that a call was allowed its server has billed, where it did."""
        with self._explained(), self._reading:
            return dict(self._reader.execute("SELECT model, times FROM overruns"))

    def has_answer(self, stage: str, model: str) -> bool:
        """Whether the model has ever answered at this stage with a text that can be used."""
        query = (
            "SELECT 1 FROM answers WHERE stage = ? AND model = ? AND answer ->> 'finish' IN ('stop', 'length') LIMIT 1"
        )
        with self._explained(), self._reading:
            return self._reader.execute(query, (stage, model)).fetchone() is not None

    def paid(self) -> dict[str, list[int]]:
        """Answers and picodollars by stage; what is uncertain is left out. Neither ever becomes less."""
        paid: dict[str, list[int]] = {}
        for total in self._totals():
            if total.kind != "uncertain":
                answers, money = paid.get(total.stage, [0, 0])
                paid[total.stage] = [answers + total.calls * (total.kind == "answers"), money + total.picodollars]
        return paid

    def calls(self) -> dict[str, int]:
        """Answers by stage."""
        return {total.stage: total.calls for total in self._totals() if total.kind == "answers"}

    def all_calls(self) -> int:
        """The number of all calls, those without an answer included."""
        return sum(total.calls for total in self._totals())

    def _totals(self) -> list[Total]:
        # On a connection of its own: sums take a tenth of a second per million answers, and `get` must not wait for them.
        with self._explained(), closing(self._open()) as db:
            return totals(db)

    def close(self) -> None:
        self._writer.shutdown()
        with self._reading:
            self._reader.close()
            self._db.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(
                f"{self.path}: the journal can't be used: {error}; free the cause and run again"
            ) from error


@retry(retry=_LOCKED, wait=wait_fixed(0.05), stop=stop_after_delay(10), reraise=True)
def _set_mode(db: sqlite3.Connection, mode: str) -> None:
    # When processes create the file at the same moment, this one statement doesn't wait for the others' lock.
    db.execute(f"PRAGMA journal_mode={mode}")


def _prepare(db: sqlite3.Connection) -> None:
    """Create the tables, or migrate those of an earlier version, in one transaction."""
    db.execute("BEGIN IMMEDIATE")
    with db:
        for statement in _SCHEMA:
            db.execute(statement)
        if not db.execute("SELECT 1 FROM pragma_index_list('answers') WHERE \"unique\"").fetchone():
            db.execute("CREATE UNIQUE INDEX answers_by_key ON answers (key)")
