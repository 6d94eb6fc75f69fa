"""The journals that workers keep for themselves, where a shared disk's locks don't hold: `journals/HOST-PROCESS.db`.

Each is written by one process alone, which finds older answers in the main journal, then only read. The process that has the
folder to itself copies them into the main one, at the start of a run and before it publishes; twice is as good as once.
"""

import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

from pipeline.models.journal_damage import set_aside_if_damaged

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
