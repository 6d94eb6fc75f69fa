"""The journal's tables, in SQL. What they mean to a run: journal.py.

Keys are hashes. In an index over them each falls on a page of its own, and a page is 4 kB to write for an answer of some
hundred bytes. So answers are appended to a table without an index, and `fold` sorts those that are new into the index by
the thousand:

    answers    one a key, the newest
    places     the index: the first characters of an answer's key, and its row
    totals     what the answers in the index sum up to: to count them and their money no answer is read
    folded     the last row that is in the two
    charges    every other call: failed, cut and asked again, or not known to have ended; with what it cost, or may have cost
    collected  requests of batches whose cost is in one of the two

Money is summed in whole picodollars: the same in whatever order calls end. A journal of an older version has its keys in an
index of SQLite's own, which stays; its answers are folded when it is first opened.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

_TABLES = (
    "CREATE TABLE IF NOT EXISTS answers (key TEXT NOT NULL, stage TEXT NOT NULL, model TEXT NOT NULL, "
    "answer TEXT NOT NULL, cost_usd REAL NOT NULL, at REAL NOT NULL)",
    "CREATE TABLE IF NOT EXISTS places (prefix TEXT NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (prefix, row)) "
    "WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS totals (stage TEXT NOT NULL PRIMARY KEY, answers INTEGER NOT NULL, "
    "picodollars INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS folded (one INTEGER PRIMARY KEY CHECK (one = 1), row INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS charges (stage TEXT NOT NULL, model TEXT NOT NULL, outcome TEXT NOT NULL, "
    "cost_usd REAL NOT NULL, certain INTEGER NOT NULL, at REAL NOT NULL)",
    "CREATE TABLE IF NOT EXISTS collected (custom_id TEXT PRIMARY KEY)",
)
# Characters of a key in the index. Among ten million keys two or three may share them: the key itself is compared as well.
PREFIX = 12
_CHARGE = "INSERT INTO charges (rowid, stage, model, outcome, cost_usd, certain, at) VALUES (?, ?, ?, ?, ?, ?, ?)"
# SQLite takes 32766 values a statement. Each length of such a list is a statement of its own, which Python keeps compiled.
AT_ONCE = 32
_FOLDED = "(SELECT coalesce(max(row), 0) FROM folded)"
_PICO = "CAST(round(cost_usd * 1e12) AS INTEGER)"
_ADD = (
    "ON CONFLICT (stage) DO UPDATE SET "
    "answers = answers + excluded.answers, picodollars = picodollars + excluded.picodollars"
)
# Money that hangs on a row counts in the totals only once the row is folded.
_IN_TOTALS = f"rowid = ?1 AND rowid <= {_FOLDED}"
_REPLACE = (
    # The answer that this one replaces was paid for as well.
    "INSERT INTO charges SELECT stage, model, 'asked_again', cost_usd, 1, at FROM answers WHERE rowid = ?1",
    f"INSERT INTO totals SELECT stage, -1, -{_PICO} FROM answers WHERE {_IN_TOTALS} {_ADD}",
    "UPDATE answers SET key = ?2, stage = ?3, model = ?4, answer = ?5, cost_usd = ?6, at = ?7 WHERE rowid = ?1",
    f"INSERT INTO totals SELECT stage, 1, {_PICO} FROM answers WHERE {_IN_TOTALS} {_ADD}",
)
_GET = (
    f"SELECT a.answer FROM places p CROSS JOIN answers a ON a.rowid = p.row AND a.key = ?1 "
    f"WHERE p.prefix = substr(?1, 1, {PREFIX}) "
    f"UNION ALL SELECT answer FROM answers WHERE rowid > {_FOLDED} AND key = ?1 LIMIT 1"
)
_FIND = (
    f"SELECT k.value, a.rowid FROM json_each(?) k CROSS JOIN places p ON p.prefix = substr(k.value, 1, {PREFIX}) "
    f"CROSS JOIN answers a ON a.rowid = p.row AND a.key = k.value",
    f"SELECT key, rowid FROM answers WHERE rowid > {_FOLDED} AND key IN (SELECT value FROM json_each(?))",
)
_SPENT = (
    "SELECT stage, sum(answers), sum(picodollars) FROM (SELECT stage, answers, picodollars FROM totals UNION ALL "
    f"SELECT stage, 1, {_PICO} FROM answers WHERE rowid > {_FOLDED}) GROUP BY stage ORDER BY stage"
)
_SPENT_BEFORE = f"SELECT stage, count(*), sum({_PICO}) FROM answers GROUP BY stage ORDER BY stage"

# key, stage, model, answer, cost_usd, at
Row = tuple[object, ...]


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def prepare(db: sqlite3.Connection) -> None:
    """Make what tables there aren't, and fold what an earlier process left."""
    for statement in _TABLES:
        db.execute(statement)
    last, folded = db.execute(f"SELECT coalesce(max(rowid), 0), {_FOLDED} FROM answers").fetchone()
    if last == folded:
        return
    with transaction(db):
        db.execute("DROP INDEX IF EXISTS money")
        if last < folded:
            # Somebody took answers out. New ones in their rows would count as folded.
            for table in ("places", "totals", "folded"):
                db.execute(f"DELETE FROM {table}")
        fold(db)


def fold(db: sqlite3.Connection) -> None:
    """Bring index and totals up to date, within a transaction."""
    db.execute(
        f"INSERT INTO places SELECT substr(key, 1, {PREFIX}) AS prefix, rowid FROM answers WHERE rowid > {_FOLDED} "
        "ORDER BY prefix"
    )
    db.execute(
        f"INSERT INTO totals SELECT stage, count(*), sum({_PICO}) FROM answers WHERE rowid > {_FOLDED} GROUP BY stage {_ADD}"
    )
    db.execute("INSERT OR REPLACE INTO folded SELECT 1, coalesce(max(rowid), 0) FROM answers")


def get(db: sqlite3.Connection, key: str, row: int | None) -> str | None:
    """The text of the answer to a key, by its row if that is known."""
    found = (
        db.execute(_GET, (key,)) if row is None else db.execute("SELECT answer FROM answers WHERE rowid = ?", (row,))
    ).fetchone()
    return str(found[0]) if found else None


def find(db: sqlite3.Connection, keys: Iterable[str], *, unfolded: bool) -> dict[str, int]:
    """The rows of those keys that have an answer. unfolded: look, one by one, through the answers out of the index too."""
    asked = json.dumps(list(keys))
    return {key: row for query in _FIND[: 1 + unfolded] for key, row in db.execute(query, (asked,))}


def settle(db: sqlite3.Connection, began: list[int], charges: list[Row], collected: list[str]) -> None:
    """Write charges, take those back that stand for calls that were under way, and note requests of batches as paid."""
    if began:
        db.executemany("DELETE FROM charges WHERE rowid = ?", [(number,) for number in began])
    if charges:
        db.executemany(_CHARGE, charges)
    if collected:
        db.executemany("INSERT OR IGNORE INTO collected VALUES (?)", [(name,) for name in collected])


def append(db: sqlite3.Connection, rows: Sequence[Row]) -> list[int]:
    """Write answers to keys that have none; returns the rows that they are in."""
    places: list[int] = []
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        last = db.execute(_insert(len(part)), [value for row in part for value in row]).lastrowid or 0
        places += range(last - len(part) + 1, last + 1)
    return places


@cache
def _insert(count: int) -> str:
    # A journal of an older version lets no key be there twice.
    return f"INSERT OR REPLACE INTO answers VALUES {', '.join(['(?, ?, ?, ?, ?, ?)'] * count)}"


def replace(db: sqlite3.Connection, place: int, row: Row) -> None:
    """Write an answer in place of the one in that row, which becomes a charge."""
    for statement in _REPLACE:
        db.execute(statement, (place, *row) if "?2" in statement else (place,))


def replaced(row: Row) -> Row:
    """The charge for an answer in whose place another one is written."""
    _, stage, model, _, cost_usd, at = row
    return (None, stage, model, "asked_again", cost_usd, True, at)


def prefixes(db: sqlite3.Connection) -> Iterator[str]:
    """Of all keys in the index."""
    return (prefix for (prefix,) in db.execute("SELECT prefix FROM places"))


def spent(db: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    """Answers and picodollars by stage, also of a journal that an older version wrote and nobody opened since."""
    older = not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'folded'").fetchone()
    return {stage: (answers, pico) for stage, answers, pico in db.execute(_SPENT_BEFORE if older else _SPENT)}
