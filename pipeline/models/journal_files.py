"""The files of journals: damaged ones are set aside, and those that workers keep for themselves are gathered.

Where a shared disk's locks don't hold, each worker writes `journals/HOST-PROCESS.db` alone, and finds older answers in the
main journal, then only read. The process that has the folder to itself copies them into the main one, at the start of a run
and before it publishes; twice is as good as once.
"""

import itertools
import os
import socket
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from pipeline.text import one_line

_SAME = "m.at = part.at AND m.stage = part.stage AND m.model = part.model"
_COPY = (
    # Two workers may have paid for the same answer.
    "INSERT INTO charges (stage, model, outcome, cost_usd, certain, at) SELECT stage, model, 'asked_again', cost_usd, 1, at "
    f"FROM own.answers AS part WHERE EXISTS (SELECT 1 FROM answers AS m WHERE m.key = part.key AND NOT ({_SAME})) "
    f"AND NOT EXISTS (SELECT 1 FROM charges AS m WHERE {_SAME})",
    "INSERT OR IGNORE INTO answers SELECT * FROM own.answers",
    "INSERT INTO charges (stage, model, outcome, cost_usd, certain, at) SELECT stage, model, outcome, cost_usd, certain, at "
    f"FROM own.charges AS part WHERE NOT EXISTS (SELECT 1 FROM charges AS m WHERE {_SAME} AND m.outcome = part.outcome)",
    "INSERT INTO overruns SELECT * FROM own.overruns WHERE true "
    "ON CONFLICT DO UPDATE SET times = max(times, excluded.times)",
)


def own_journal(journal: Path) -> Path:
    """This process's own journal beside the main one."""
    return journal.with_name("journals") / f"{socket.gethostname()}-{os.getpid()}.db"


def gather(journal: Path) -> None:
    """Copy what the workers' journals hold into the main one, which has its tables. Raises sqlite3.Error."""
    for path in sorted(journal.with_name("journals").glob("*.db")):
        if set_aside_if_damaged(path):
            continue
        with closing(sqlite3.connect(journal, timeout=60, isolation_level=None)) as db:
            db.execute("ATTACH ? AS own", (str(path),))
            db.execute("BEGIN IMMEDIATE")
            with db:
                for statement in _COPY:
                    db.execute(statement)


def locks_hold(probe: Path) -> bool | None:
    """Whether this process is kept from a lock that another one holds on `probe`; None where there is no such file."""
    if not probe.exists():
        return None
    with closing(sqlite3.connect(probe, timeout=0, isolation_level=None)) as db:
        try:
            db.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            return True
        return False


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
