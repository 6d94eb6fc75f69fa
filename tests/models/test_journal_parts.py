"""Journals of single workers: gathered into the main one without loss, whenever and however often."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from pipeline.models.event_loop import run
from pipeline.models.journal import Journal
from pipeline.models.journal_files import locks_hold, own_journal
from pipeline.models.request import Answer


def test_workers_find_older_answers_and_the_next_process_finds_theirs(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    main = Journal(path, across_machines=True)
    run(main.keep("old", "sample", "m", Answer("old", "stop", 1), 1.0))
    main.close()
    parts = [Journal(path.with_name("journals") / f"{name}.db", base=path) for name in ("a", "b")]
    for part in parts:
        assert (answer := part.get("old")) and answer.text == "old"
        assert part.spent() == 0
        # Both pay for the same answer, and for one that never comes.
        run(part.keep("new", "sample", "m", Answer("new", "stop", 1), 0.5))
        run(part.charge("sample", "m", "timeout", 0.25, certain=False))
    run(parts[0].keep("mine", "revise", "m", Answer("mine", "stop", 1), 0.125))
    for _ in range(3):
        main = Journal(path, across_machines=True)
        assert [(answer := main.get(key)) and answer.text for key in ("old", "new", "mine")] == ["old", "new", "mine"]
        assert main.spent() == 1.0 + 2 * 0.5 + 2 * 0.25 + 0.125
        assert main.uncertain() == 0.5
        assert main.calls() == {"sample": 2, "revise": 1}
        main.close()


def test_a_damaged_journal_of_a_worker_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    own = own_journal(path)
    own.parent.mkdir()
    own.write_bytes(b"no database" * 1000)
    assert Journal(path).spent() == 0
    assert not own.exists() and [name.name.startswith(own.name + ".damaged") for name in own.parent.iterdir()] == [True]


def test_a_lock_that_is_held_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "locks.db"
    assert locks_hold(path) is None
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        assert locks_hold(path) is True
    assert locks_hold(path) is False
