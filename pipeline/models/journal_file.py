"""The journal's file before it is opened: is it sound, and what becomes of one that isn't."""

from __future__ import annotations

import itertools
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from pipeline.text import one_line


def check(path: Path) -> None:
    """Raises sqlite3.DatabaseError for a damaged file.

    To be done before any writing connection exists: closing one copies the log into the file, damaged or not.
    """
    if not path.exists():
        return
    # SQLite takes a file without a whole header for an empty one, and writes over it.
    if 0 < path.stat().st_size < 100:
        raise sqlite3.DatabaseError("too short for a database")
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=60)) as db:
        verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'answers'").fetchone():
            # The pages may be sound and a text in them not.
            broken = db.execute("SELECT key FROM answers WHERE NOT json_valid(answer) LIMIT 1").fetchone()
            if broken:
                raise sqlite3.DatabaseError(f"the answer {broken[0][:16]} is no JSON")


def set_aside(path: Path, error: Exception) -> str:
    """Rename the file with its log, under names that SQLite's own `.recover` takes; the warning for the user."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    names = (
        f"{path.name}.damaged-{stamp}{extra}" for extra in itertools.chain([""], (f"-{n}" for n in itertools.count(2)))
    )
    aside = next(name for name in map(path.with_name, names) if not name.exists())
    for suffix in ("-wal", "-shm", ""):
        file = path.with_name(path.name + suffix)
        if file.exists():
            file.rename(aside.with_name(aside.name + suffix))
    return (
        f"{path}: the journal of paid answers was damaged ({one_line(error, 1000)}) and is now {aside.name}; "
        "a new one is begun. Finished shards stay, other answers are asked for and paid anew, and --budget counts from 0"
    )
