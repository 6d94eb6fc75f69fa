"""The memory of paid work: every accepted answer of a language model, in one SQLite file.

An answer is keyed by the sha256 of everything sent and written before it is used. The promise: no accepted answer is lost
once journalled; after kill −9 at most the calls in flight are paid twice. WAL with synchronous=NORMAL keeps that promise
for a killed process; a power cut may take back the last moments, never damage the file. Local disks only: SQLite's WAL does
not work over network file systems.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from pipeline.errors import StorageError

_TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, stage TEXT NOT NULL, model TEXT NOT NULL, answer TEXT NOT NULL, cost_usd REAL NOT NULL,
    at REAL NOT NULL
)
"""
# Counting calls and money must not read the answers' texts.
_INDEX = "CREATE INDEX IF NOT EXISTS money ON answers (stage, cost_usd)"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said. Tokens as the server counted them; finish is `stop` or `length` (cut at max_tokens)."""

    text: str
    finish: str
    max_tokens: int
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    request_id: str | None = None


class Journal:
    """Answers by key. Threads may share one; processes may open the same file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._check()
            self._db = self._open()
        except (OSError, sqlite3.OperationalError) as error:
            raise StorageError(f"{path}: the journal of paid answers can't be opened: {error}") from error
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def _check(self) -> None:
        """Look before any writing connection exists: closing one copies the log into the file, damaged or not."""
        if not self.path.exists():
            return
        # SQLite takes a file without a whole header for an empty one, and writes over it.
        if 0 < self.path.stat().st_size < 100:
            raise sqlite3.DatabaseError("too short for a database")
        uri = f"{self.path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=60)) as db:
            verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)

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
                db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute(_TABLE)
        db.execute(_INDEX)
        return db

    def _damaged(self, error: Exception) -> StorageError:
        aside = f"{self.path.name}.damaged-{int(time.time())}"
        return StorageError(
            f"{self.path}: the journal of paid answers is damaged ({' '.join(str(error).split())}). Move it away, for "
            f"example to {aside}, and run again: finished shards stay, other answers are asked for anew"
        )

    def get(self, key: str) -> Answer | None:
        with self._guard() as db:
            row = db.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        try:
            return Answer(**json.loads(row[0])) if row else None
        except (ValueError, TypeError) as error:
            raise self._damaged(error) from error

    def put(self, key: str, stage: str, model: str, answer: Answer, cost_usd: float) -> None:
        """Keep an answer in place of the one that `key` may have: both were paid for."""
        # ASCII JSON: lone surrogates, which SQLite refuses, survive as escapes.
        text = json.dumps(asdict(answer), ensure_ascii=True)
        with self._guard() as db:
            db.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
                "answer = excluded.answer, cost_usd = cost_usd + excluded.cost_usd, at = excluded.at",
                (key, stage, model, text, cost_usd, time.time()),
            )

    def spent(self) -> float:
        """US dollars paid for everything in this journal."""
        with self._guard() as db:
            return float(db.execute("SELECT coalesce(sum(cost_usd), 0) FROM answers").fetchone()[0])

    def money(self) -> dict[str, tuple[int, float]]:
        """Answers and US dollars by stage."""
        query = "SELECT stage, count(*), sum(cost_usd) FROM answers GROUP BY stage ORDER BY stage"
        with self._guard() as db:
            return {stage: (calls, cost) for stage, calls, cost in db.execute(query)}

    def calls(self) -> dict[str, int]:
        """Answers by stage."""
        return {stage: calls for stage, (calls, _) in self.money().items()}

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _guard(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock:
                yield self._db
        except sqlite3.Error as error:
            raise StorageError(
                f"{self.path}: the journal can't be used: {error}; free the cause and run again"
            ) from error
