"""A journal whose file is damaged is set aside before it is opened, never overwritten."""

import itertools
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from pipeline.text import one_line


def set_aside_if_damaged(path: Path) -> str | None:
    """Rename a damaged file with its log, under names that SQLite's own `.recover` takes; returns the warning for the user."""
    try:
        check_file(path)
        return None
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        reason = one_line(error, 1000)
    name = f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    aside = next(one for one in map(path.with_name, names) if not one.exists())
    for suffix in ("-wal", "-shm", ""):
        file = path.with_name(path.name + suffix)
        if file.exists():
            file.rename(aside.with_name(aside.name + suffix))
    return (
        f"{path}: the journal of paid answers was damaged ({reason}) and is now {aside.name}; a new one is begun. "
        "Finished shards stay, other answers are requested and paid for again, and --budget counts what is known to be spent"
    )


def check_file(path: Path) -> None:
    """Raises sqlite3.DatabaseError for a damaged file.

    To be called before a writing connection exists: closing one copies the log into the file, damaged or not.
    """
    if not path.exists():
        return
    # SQLite takes a file without a whole header for an empty one, and writes over it.
    if 0 < path.stat().st_size < 100:
        raise sqlite3.DatabaseError("too short for a database")
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60)) as db:
        verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'answers'").fetchone():
            # The pages may be sound and a text in them not.
            broken = db.execute("SELECT key FROM answers WHERE NOT json_valid(answer) LIMIT 1").fetchone()
            if broken:
                raise sqlite3.DatabaseError(f"the answer {broken[0][:16]} is no JSON")
