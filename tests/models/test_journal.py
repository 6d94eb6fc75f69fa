"""The journal of paid answers: exact, shared between processes, never lost, never overwritten."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.models.event_loop import run
from pipeline.models.journal import Answer, Journal, dollars, totals
from tests.conftest import ROOT, child_environment

PUTTING = """
import os, signal, sys
from pathlib import Path
from pipeline.models.journal import Answer, Journal
from pipeline.models.event_loop import run
name, count, end = sys.argv[2], int(sys.argv[3]), sys.argv[4]
journal = Journal(Path(sys.argv[1]))
for index in range(count):
    run(journal.keep(f"{name}{index}", "sample", name, Answer(f"answer {index}", "stop", 9), 0.25))
print("put", flush=True)
if end == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def child(path: Path, name: str, count: int, end: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PUTTING, str(path), name, str(count), end]
    return subprocess.Popen(command, cwd=ROOT, env=child_environment(), stdout=subprocess.PIPE, text=True)


def folder_bytes(folder: Path, names: set[str] | None = None) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if names is None or path.name in names
    }


def put(journal: Journal, key: str, stage: str, model: str, answer: Answer, cost_usd: float) -> None:
    run(journal.keep(key, stage, model, answer, cost_usd))


@pytest.fixture(params=[False, True], ids=["one machine", "across machines"])
def journal(tmp_path: Path, request: pytest.FixtureRequest) -> Journal:
    return Journal(tmp_path / "work" / "journal.db", across_machines=request.param)


def test_every_field_comes_back_also_after_reopening(journal: Journal) -> None:
    answer = Answer("Blue.", "length", 12, 34, 56, 7, "req_1")
    put(journal, "key", "sample", "openai/m", answer, 0.5)
    assert journal.get("key") == answer
    assert journal.get("other") is None
    journal.close()
    again = Journal(journal.path)
    assert again.get("key") == answer
    assert again.money() == {"sample": (1, 0.5)}


@pytest.mark.parametrize(
    "text",
    [
        "\ud800 lone",
        "a\0b",
        "\ufeffbom \u202e bidi",
        "e\u0301 \u00e9",
        "x" * 2**20,
        "\U0001f600" * 1000,
        "\r\n\t\x7f",
        '"\\',
    ],
    ids=["surrogate", "nul", "controls", "nfd", "1MB", "astral", "white", "quotes"],
)
def test_any_text_is_kept_exactly(journal: Journal, text: str) -> None:
    put(journal, "key", "sample", "m", Answer(text, "stop", 9), 0)
    journal.close()
    found = Journal(journal.path).get("key")
    assert found is not None
    assert found.text == text


def test_replaying_changes_nothing(journal: Journal) -> None:
    for index in range(20):
        put(journal, f"key{index}", "sample", "m", Answer(str(index), "stop", 9), 0.1)
    before = [journal.get(f"key{index}") for index in range(20)], journal.money(), journal.spent()
    for _ in range(3):
        journal.close()
        journal = Journal(journal.path)
        assert ([journal.get(f"key{index}") for index in range(20)], journal.money(), journal.spent()) == before


def test_asked_twice_is_one_answer_and_the_money_of_both(journal: Journal) -> None:
    """A cut answer that is asked for again with a higher limit has been paid for as well."""
    put(journal, "key", "sample", "m", Answer("Bl", "length", 1), 0.25)
    put(journal, "key", "sample", "m", Answer("Blue", "stop", 9), 0.5)
    assert journal.get("key") == Answer("Blue", "stop", 9)
    assert journal.calls() == {"sample": 1}
    assert journal.spent() == pytest.approx(0.75)
    assert journal.money()["sample"][1] == pytest.approx(0.75)


def test_money_by_stage(journal: Journal) -> None:
    assert (journal.money(), journal.calls(), journal.spent()) == ({}, {}, 0.0)
    for index, (stage, cost) in enumerate([("sample", 0.1), ("revise", 0.2), ("sample", 0.3), ("diagnose", 0.0)]):
        put(journal, f"key{index}", stage, "m", Answer("x", "stop", 9), cost)
    assert journal.calls() == {"diagnose": 1, "revise": 1, "sample": 2}
    assert {stage: round(cost, 9) for stage, (_, cost) in journal.money().items()} == {
        "diagnose": 0.0,
        "revise": 0.2,
        "sample": 0.4,
    }
    assert journal.spent() == pytest.approx(0.6)


def test_what_others_see_at_any_time_is_what_was_put(tmp_path: Path) -> None:
    """Answers that are replaced included; killed at any time, nothing is lost or counted twice."""
    path = tmp_path / "journal.db"
    journal = Journal(path)
    for index in range(40):
        put(journal, f"key{index}", "sample", "m", Answer(str(index), "stop", 9), 0.25)
        if index % 5 == 0:
            put(journal, f"key{index // 2}", "again", "m", Answer("again", "stop", 9), 0.5)
        replaced = {at // 2 for at in range(0, index + 1, 5)}
        for key in range(42):
            expected = "again" if key in replaced else str(key)
            assert journal.get(f"key{key}") == (Answer(expected, "stop", 9) if key <= index else None), (index, key)
        money = {
            "again": (len(replaced), 0.5 * len(replaced)),
            "sample": (index + 1 - len(replaced), 0.25 * (index + 1)),
        }
        # Nobody closed it: what another process sees now is what a kill would leave.
        for other in (journal, Journal(path)) if index % 13 == 0 else (journal,):
            assert other.money() == money
            assert other.all_calls() == index + 1 + len(replaced)


def test_money_is_the_same_in_whatever_order_calls_end(tmp_path: Path) -> None:
    costs = [0.1, 1e16 / 1e10, 0.2, 3e-7, 0.3, 1 / 3]
    spent = set()
    for number, order in enumerate(itertools.permutations(costs)):
        if number % 90 == 0:
            journal = Journal(tmp_path / f"{number}.db")
            for index, cost in enumerate(order):
                put(journal, f"key{index}", "sample", "m", Answer("x", "stop", 9), cost)
                run(journal.charge("sample", "m", "timed_out", cost, certain=False))
            spent.add((journal.spent(), journal.uncertain(), journal.money()["sample"]))
    assert len(spent) == 1


COLUMNS = (
    "stage TEXT NOT NULL, model TEXT NOT NULL, answer TEXT NOT NULL, cost_usd REAL NOT NULL, at REAL NOT NULL)",
    "CREATE TABLE charges (stage TEXT NOT NULL, model TEXT NOT NULL, outcome TEXT NOT NULL, cost_usd REAL NOT NULL, "
    "certain INTEGER NOT NULL, at REAL NOT NULL)",
    "CREATE TABLE collected (custom_id TEXT PRIMARY KEY)",
)
OWN_INDEX = (
    "CREATE TABLE places (prefix TEXT NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (prefix, row)) WITHOUT ROWID",
    "CREATE TABLE totals (stage TEXT NOT NULL PRIMARY KEY, answers INTEGER NOT NULL, picodollars INTEGER NOT NULL) "
    "WITHOUT ROWID",
    "CREATE TABLE folded (one INTEGER PRIMARY KEY CHECK (one = 1), row INTEGER NOT NULL)",
)
FOLDED = (
    "INSERT INTO places SELECT substr(key, 1, 12), rowid FROM answers WHERE rowid <= 12",
    "INSERT INTO totals VALUES ('sample', 12, 3000000000000)",
    "INSERT INTO folded VALUES (1, 12)",
)
# What earlier versions wrote, in their own words: statements before the answers, and after them.
EARLIER = {
    "1": (
        (
            f"CREATE TABLE answers (key TEXT PRIMARY KEY, {COLUMNS[0]}",
            "CREATE INDEX money ON answers (stage, cost_usd)",
            *COLUMNS[1:],
        ),
        (),
    ),
    "2": ((f"CREATE TABLE answers (key TEXT NOT NULL, {COLUMNS[0]}", *COLUMNS[1:], *OWN_INDEX), FOLDED),
    "1 opened by 2": ((f"CREATE TABLE answers (key TEXT PRIMARY KEY, {COLUMNS[0]}", *COLUMNS[1:], *OWN_INDEX), FOLDED),
}


@pytest.mark.parametrize("across_machines", [False, True])
@pytest.mark.parametrize("version", EARLIER)
def test_a_journal_of_an_earlier_version_is_read_and_goes_on(
    tmp_path: Path, version: str, across_machines: bool
) -> None:
    path = tmp_path / "journal.db"
    before, after = EARLIER[version]
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        for statement in before:
            db.execute(statement)
        for index in range(20):
            answer = json.dumps({"text": str(index), "finish": "stop", "max_tokens": 9})
            db.execute("INSERT INTO answers VALUES (?, 'sample', 'm', ?, 0.25, 0)", (f"{index:064}", answer))
        db.execute("INSERT INTO charges VALUES ('revise', 'm', 'timed_out', 1.0, 0, 0)")
        db.execute("INSERT INTO collected VALUES ('request')")
        for statement in after:
            db.execute(statement)
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        sums = totals(db)
        assert [tuple(one) for one in sums] == [
            ("revise", "uncertain", 1, 10**12),
            ("sample", "answers", 20, 5 * 10**12),
        ]
        assert dollars(sums) == 6
    for number in range(2):
        opened = Journal(path, across_machines=across_machines)
        assert opened.warning is None
        assert all(opened.get(f"{index:064}") == Answer(str(index), "stop", 9) for index in range(1, 20))
        put(opened, f"{0:064}", "sample", "m", Answer("again", "stop", 10), 0.5)
        put(opened, f"new{number}", "revise", "m", Answer("new", "stop", 9), 0.125)
        assert opened.get(f"{0:064}") == Answer("again", "stop", 10)
        assert opened.calls() == {"revise": 1 + number, "sample": 20}
        assert opened.spent() == 5 + 1 + (1 + number) * 0.625
        assert opened.uncertain() == 1
        opened.close()
    with closing(sqlite3.connect(path)) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert tables == {"answers", "charges", "collected", "overruns"}
        assert db.execute("SELECT custom_id FROM collected").fetchall() == [("request",)]
        with pytest.raises(sqlite3.IntegrityError):
            db.execute("INSERT INTO answers SELECT * FROM answers LIMIT 1")


def test_a_failed_migration_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    before, after = EARLIER["2"]
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in before:
            db.execute(statement)
        for key in ("a", "b"):
            db.execute("INSERT INTO answers VALUES (?, 'sample', 'm', '{}', 0.25, 0)", (key,))
        for statement in after:
            db.execute(statement)
        shape = db.execute("SELECT sql FROM sqlite_master").fetchall()
        # No file of ours has a key twice.
        db.execute("UPDATE answers SET key = 'a'")
    with pytest.raises(StorageError, match="can't be opened"):
        Journal(path)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT sql FROM sqlite_master").fetchall() == shape
        assert db.execute("SELECT count(*) FROM answers").fetchone() == (2,)


def test_answers_that_somebody_took_out_are_forgotten_and_others_take_their_rows(journal: Journal) -> None:
    for index in range(9):
        put(journal, f"key{index}", "sample", "m", Answer(str(index), "stop", 9), 0.25)
    journal.close()
    with closing(sqlite3.connect(journal.path, isolation_level=None)) as db:
        db.execute("DELETE FROM answers WHERE rowid > 5")
    again = Journal(journal.path)
    put(again, "other", "sample", "m", Answer("other", "stop", 9), 0.25)
    assert again.calls() == Journal(journal.path).calls() == {"sample": 6}
    assert [again.get(key) is None for key in ("key4", "key5", "other")] == [False, True, False]


def test_processes_share_one_file(tmp_path: Path) -> None:
    """Both open it while it doesn't exist, both write at once."""
    path = tmp_path / "journal.db"
    children = [child(path, name, 150) for name in ("a", "b")]
    assert [process.wait(60) for process in children] == [0, 0]
    journal = Journal(path)
    assert journal.calls() == {"sample": 300}
    for name in ("a", "b"):
        assert all(journal.get(f"{name}{index}") == Answer(f"answer {index}", "stop", 9) for index in range(150))


def test_threads_share_one_journal(journal: Journal) -> None:
    def put_many(name: str) -> None:
        for index in range(50):
            put(journal, f"{name}{index}", "sample", "m", Answer(name, "stop", 9), 0.5)

    threads = [threading.Thread(target=put_many, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert journal.money() == {"sample": (200, 100.0)}


def test_nothing_that_was_put_is_lost_by_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    process = child(path, "a", 37, "killed")
    assert process.wait(60) == -signal.SIGKILL
    journal = Journal(path)
    assert journal.calls() == {"sample": 37}
    assert all(journal.get(f"a{index}") == Answer(f"answer {index}", "stop", 9) for index in range(37))
    put(journal, "b", "sample", "m", Answer("more", "stop", 9), 0)
    assert journal.calls() == {"sample": 38}


def damage(raw: bytes, how: str) -> bytes:
    match how:
        case "header":
            return b"garbage!" * 20 + raw[160:]
        case "middle":
            return raw[:5000] + b"\x5a" * 8000 + raw[13000:]
        case "shortened":
            return raw[: len(raw) // 2]
        case "torn to a few bytes":
            return raw[:7]
        case _:
            return b"something else altogether\n" * 400


@pytest.mark.parametrize("how", ["header", "middle", "shortened", "torn to a few bytes", "foreign"])
def test_a_damaged_file_is_set_aside_as_it_is_and_a_new_one_begun(tmp_path: Path, how: str) -> None:
    path = tmp_path / "journal.db"
    journal = Journal(path)
    for index in range(60):
        put(journal, f"key{index}", "sample", "m", Answer("x" * 700, "stop", 9), 0.1)
    journal.close()
    damaged = damage(path.read_bytes(), how)
    for _ in range(2):
        path.write_bytes(damaged)
        before = folder_bytes(tmp_path)["journal.db"]
        fresh = Journal(path)
        assert fresh.warning is not None
        assert str(path) in fresh.warning
        assert "damaged" in fresh.warning
        assert "\n" not in fresh.warning
        aside = fresh.warning.split(" is now ")[1].split(";")[0]
        assert folder_bytes(tmp_path)[aside] == before
        assert (fresh.calls(), fresh.get("key1")) == ({}, None)
        put(fresh, "key", "sample", "m", Answer("new", "stop", 9), 0)
        fresh.close()
    # Two in the same second keep names of their own.
    asides = {name for name in folder_bytes(tmp_path) if ".damaged-" in name}
    assert len({name.removesuffix("-wal").removesuffix("-shm") for name in asides}) == 2
    again = Journal(path)
    assert (again.warning, again.calls()) == (None, {"sample": 1})


def test_the_log_is_set_aside_with_its_file(tmp_path: Path) -> None:
    """What a crash left in it can be recovered by SQLite's own means."""
    (tmp_path / "live").mkdir()
    journal = Journal(tmp_path / "live" / "journal.db")
    for index in range(60):
        put(journal, f"key{index}", "sample", "m", Answer("x" * 700, "stop", 9), 0.1)
    journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    put(journal, "late", "sample", "m", Answer("in the log alone", "stop", 9), 0.1)
    # What a crash leaves: the three files as they are now.
    crashed = Path(shutil.copytree(tmp_path / "live", tmp_path / "crashed"))
    path = crashed / "journal.db"
    path.write_bytes(damage(path.read_bytes(), "middle"))
    before = folder_bytes(crashed)
    assert "journal.db-wal" in before
    warning = Journal(path).warning
    assert warning is not None
    aside = warning.split(" is now ")[1].split(";")[0]
    after = folder_bytes(crashed)
    assert after[aside] == before["journal.db"]
    assert after[f"{aside}-wal"] == before["journal.db-wal"]


def test_a_damaged_answer_in_a_sound_file_is_found_when_the_file_is_opened(journal: Journal) -> None:
    put(journal, "key", "sample", "m", Answer("x", "stop", 9), 0)
    with sqlite3.connect(journal.path) as db:
        db.execute("UPDATE answers SET answer = substr(answer, 1, 20)")
    with pytest.raises(StorageError, match="damaged") as caught:
        journal.get("key")
    assert str(journal.path) in str(caught.value)
    journal.close()
    again = Journal(journal.path)
    assert again.warning is not None
    assert again.get("key") is None


def test_a_busy_file_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.db"
    Journal(path).close()

    def busy(path: Path) -> None:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr("pipeline.models.journal_files.check_file", busy)
    with pytest.raises(StorageError, match="database is locked"):
        Journal(path)
    assert not list(tmp_path.glob("*damaged*"))


def test_a_folder_that_cannot_be_made_is_named_and_not_called_damage(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "journal.db").mkdir()
    for path in (tmp_path / "file" / "journal.db", tmp_path / "journal.db"):
        with pytest.raises(StorageError) as caught:
            Journal(path)
        assert str(path) in str(caught.value)
        assert "damaged" not in str(caught.value)


def test_a_full_disk_is_one_error_and_the_journal_serves_on(journal: Journal) -> None:
    put(journal, "key", "sample", "m", Answer("x", "stop", 9), 0)
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match="full") as caught:
        put(journal, "big", "sample", "m", Answer("x" * 100_000, "stop", 9), 0)
    assert str(journal.path) in str(caught.value)
    assert journal.get("key") == Answer("x", "stop", 9)
    assert journal.get("big") is None
