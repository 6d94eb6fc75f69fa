"""What was submitted in batches: written before it is sent, so that a killed run finds its batches and pays for none twice.

One SQLite file beside the journal, for one process at a time. A request is known by its custom id, the sha256 of everything
sent and of its seed, and is in one batch at a time: a result without value (expired, cancelled, a server's failure) is
forgotten before the request goes into another. Each request holds its worst-case cost from `intend` on until its cost is in
the journal or it ends without value. Commits wait for the disk (synchronous=FULL): each stands for money.
"""

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path

from pipeline.errors import StorageError
from pipeline.models.journal_files import check_file
from pipeline.storage.atomic import private_file
from pipeline.storage.location import local_side

FILE = "batches.db"
_TABLES = """
CREATE TABLE IF NOT EXISTS batches (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, size INTEGER NOT NULL, created REAL NOT NULL, id TEXT,
    state TEXT NOT NULL, done INTEGER NOT NULL, open INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS items (
    number INTEGER PRIMARY KEY, custom_id TEXT NOT NULL UNIQUE, batch TEXT NOT NULL, result TEXT
);
CREATE INDEX IF NOT EXISTS by_batch ON items (batch);
CREATE TABLE IF NOT EXISTS holds (custom_id TEXT PRIMARY KEY, usd REAL NOT NULL);
"""
_COLUMNS = "key, model, size, created, id, state, done"
_UNFINISHED = f"SELECT {_COLUMNS} FROM batches WHERE open ORDER BY created"


@dataclass(frozen=True, slots=True)
class Batch:
    """`key` is ours, `id` the provider's: None until it is known. `created` in seconds since 1970."""

    key: str
    model: str
    size: int
    created: float
    id: str | None
    state: str
    done: int


@dataclass(frozen=True, slots=True)
class Item:
    """A submitted request: the batch that it is in, and its result as JSON once there is one."""

    batch: str
    result: str | None


class BatchLedger:
    """Batches and their requests. Threads may share one. Raises StorageError when the disk refuses or the file is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        with self._explained():
            check_file(path)
            private_file(path)
            self._db = sqlite3.connect(path, timeout=60, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_TABLES)

    def intend(self, key: str, model: str, custom_ids: Sequence[str], most_usd: Sequence[float] = ()) -> Batch:
        """Note a batch that is about to be sent; its items keep this order. `most_usd`: what each can cost at most."""
        batch = Batch(key, model, len(custom_ids), time.time(), None, "sending", 0)
        with self._writing() as db:
            db.execute(f"INSERT INTO batches ({_COLUMNS}, open) VALUES (?, ?, ?, ?, ?, ?, ?, 1)", astuple(batch))
            db.executemany("INSERT INTO items (custom_id, batch) VALUES (?, ?)", ((one, key) for one in custom_ids))
            holds = [(one, usd) for one, usd in zip(custom_ids, most_usd, strict=False) if usd]
            db.executemany("INSERT OR REPLACE INTO holds VALUES (?, ?)", holds)
        return batch

    def name(self, key: str, batch_id: str | None) -> None:
        """Note the provider's id of a batch."""
        with self._writing() as db:
            db.execute("UPDATE batches SET id = ?, state = 'sent' WHERE key = ?", (batch_id, key))

    def saw(self, key: str, state: str, done: int) -> None:
        """The provider's progress with a batch, for displays. `state` is a word of the provider's."""
        state = state if state.isidentifier() and len(state) <= 32 else "unknown"
        with self._writing() as db:
            db.execute("UPDATE batches SET state = ?, done = ? WHERE key = ?", (state, done, key))

    def keep(self, key: str, results: Iterable[tuple[str, str]]) -> None:
        """Keep results of this batch, (custom id, JSON), without keys; of two for one request the first."""
        with self._writing() as db:
            query = "UPDATE items SET result = ? WHERE custom_id = ? AND batch = ? AND result IS NULL"
            db.executemany(query, ((text, custom_id, key) for custom_id, text in results))

    def finish(self, key: str) -> list[str]:
        """Close a batch. Returns what has no result: it was never answered, holds no money now, and may be sent again."""
        with self._writing() as db:
            query = "DELETE FROM items WHERE batch = ? AND result IS NULL RETURNING custom_id"
            unanswered = [one for (one,) in db.execute(query, (key,)).fetchall()]
            db.executemany("DELETE FROM holds WHERE custom_id = ?", ((one,) for one in unanswered))
            db.execute("UPDATE batches SET open = 0 WHERE key = ?", (key,))
        return unanswered

    def give_up(self, key: str) -> list[tuple[str, str, float]]:
        """Close a batch that is gone at the provider. What has no result may be sent again.

        It may have been billed, so what it holds stays set aside under another name: (custom id, that name, US dollars).
        """
        with self._writing() as db:
            lost = "SELECT custom_id FROM items WHERE batch = ? AND result IS NULL"
            held = db.execute(f"SELECT custom_id, usd FROM holds WHERE custom_id IN ({lost})", (key,)).fetchall()
            renamed = [(one, f"{one} {key}", usd) for one, usd in held]
            db.executemany(
                "UPDATE holds SET custom_id = ? WHERE custom_id = ?", ((new, old) for old, new, _ in renamed)
            )
            db.execute("DELETE FROM items WHERE batch = ? AND result IS NULL", (key,))
            db.execute("UPDATE batches SET open = 0, state = 'gone' WHERE key = ?", (key,))
        return renamed

    def forget(self, custom_id: str) -> None:
        """Drop a result of no value, so that its request may be sent again."""
        with self._writing() as db:
            if db.execute("DELETE FROM items WHERE custom_id = ? AND result IS NOT NULL", (custom_id,)).rowcount:
                db.execute("DELETE FROM holds WHERE custom_id = ?", (custom_id,))

    def hold(self, costs: Iterable[tuple[str, float]]) -> None:
        """Change what requests hold: (custom id, US dollars) pairs."""
        with self._writing() as db:
            db.executemany("UPDATE holds SET usd = ? WHERE custom_id = ?", ((usd, one) for one, usd in costs))

    def holds(self, journal: Path) -> dict[str, float]:
        """US dollars that each request holds; what the journal has counted by now holds none."""
        with self._reading() as db:
            db.execute("ATTACH ? AS journal", (str(journal),))
            try:
                db.execute("DELETE FROM holds WHERE custom_id IN (SELECT custom_id FROM journal.collected)")
            finally:
                db.execute("DETACH journal")
            return dict(db.execute("SELECT custom_id, usd FROM holds"))

    def find(self, custom_id: str) -> Item | None:
        with self._reading() as db:
            row = db.execute("SELECT batch, result FROM items WHERE custom_id = ?", (custom_id,)).fetchone()
        return Item(*row) if row else None

    def batch(self, key: str) -> Batch:
        with self._reading() as db:
            return Batch(*db.execute(f"SELECT {_COLUMNS} FROM batches WHERE key = ?", (key,)).fetchone())

    def custom_ids(self, key: str) -> list[str]:
        """Those of the batch's items that are still in it, in the order in which they were sent."""
        with self._reading() as db:
            return [one for (one,) in db.execute("SELECT custom_id FROM items WHERE batch = ? ORDER BY number", (key,))]

    def ids(self) -> set[str]:
        """The provider's ids of all our batches."""
        with self._reading() as db:
            return {one for (one,) in db.execute("SELECT id FROM batches WHERE id IS NOT NULL")}

    def unfinished(self) -> list[Batch]:
        """Batches whose results are not all here, the oldest first."""
        with self._reading() as db:
            return [Batch(*row) for row in db.execute(_UNFINISHED)]

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction."""
        with self._explained(), self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            with self._db:
                yield self._db

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._explained(), self._lock:
            yield self._db

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.OperationalError) as error:
            raise StorageError(
                f"{self.path}: the ledger of batches can't be used: {error}; free the cause and run again"
            ) from error
        except sqlite3.DatabaseError as error:
            raise StorageError(
                f"{self.path}: the ledger of batches is damaged ({error}). Move it away to go on without it: batches that "
                "are still at the provider are then paid for again"
            ) from error


def unfinished(work: Path) -> list[Batch]:
    """The batches still at the provider, for displays: reads the ledger of a work folder only, and never raises."""
    path = local_side(work) / FILE
    if not path.exists():
        return []
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        return [Batch(*row) for row in db.execute(_UNFINISHED)]
    return []


def holds(journal: Path) -> dict[str, float]:
    """US dollars that requests hold, by custom id, in the ledger beside the journal. Raises StorageError."""
    path = journal.with_name(FILE)
    if not path.exists():
        return {}
    with closing(BatchLedger(path)) as ledger:
        return ledger.holds(journal)
