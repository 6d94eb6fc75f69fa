"""The journal of paid answers: exact, shared between processes, never lost, never overwritten."""

from __future__ import annotations

import hashlib
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
from pipeline.models import journal_file, journal_tables
from pipeline.models.journal import Answer, Journal
from tests.conftest import ROOT, child_environment

PUTTING = """
import os, signal, sys
from pathlib import Path
from pipeline.models.journal import Answer, Journal
name, count, end = sys.argv[2], int(sys.argv[3]), sys.argv[4]
journal = Journal(Path(sys.argv[1]))
for index in range(count):
    journal.put(f"{name}{index}", "sample", name, Answer(f"answer {index}", "stop", 9), 0.25)
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


@pytest.fixture(params=[False, True], ids=["shared", "alone"])
def journal(tmp_path: Path, request: pytest.FixtureRequest) -> Journal:
    return Journal(tmp_path / "work" / "journal.db", alone=request.param)


def test_every_field_comes_back_also_after_reopening(journal: Journal) -> None:
    answer = Answer("Blue.", "length", 12, 34, 56, 7, "req_1")
    journal.put("key", "sample", "openai/m", answer, 0.5)
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
    journal.put("key", "sample", "m", Answer(text, "stop", 9), 0)
    journal.close()
    found = Journal(journal.path).get("key")
    assert found is not None
    assert found.text == text


def test_replaying_changes_nothing(journal: Journal) -> None:
    for index in range(20):
        journal.put(f"key{index}", "sample", "m", Answer(str(index), "stop", 9), 0.1)
    before = [journal.get(f"key{index}") for index in range(20)], journal.money(), journal.spent()
    for _ in range(3):
        journal.close()
        journal = Journal(journal.path)
        assert ([journal.get(f"key{index}") for index in range(20)], journal.money(), journal.spent()) == before


def test_asked_twice_is_one_answer_and_the_money_of_both(journal: Journal) -> None:
    """A cut answer that is asked for again with a higher limit has been paid for as well."""
    journal.put("key", "sample", "m", Answer("Bl", "length", 1), 0.25)
    journal.put("key", "sample", "m", Answer("Blue", "stop", 9), 0.5)
    assert journal.get("key") == Answer("Blue", "stop", 9)
    assert journal.calls() == {"sample": 1}
    assert journal.spent() == pytest.approx(0.75)
    assert journal.money()["sample"][1] == pytest.approx(0.75)


def test_money_by_stage(journal: Journal) -> None:
    assert (journal.money(), journal.calls(), journal.spent()) == ({}, {}, 0.0)
    for index, (stage, cost) in enumerate([("sample", 0.1), ("revise", 0.2), ("sample", 0.3), ("diagnose", 0.0)]):
        journal.put(f"key{index}", stage, "m", Answer("x", "stop", 9), cost)
    assert journal.calls() == {"diagnose": 1, "revise": 1, "sample": 2}
    assert {stage: round(cost, 9) for stage, (_, cost) in journal.money().items()} == {
        "diagnose": 0.0,
        "revise": 0.2,
        "sample": 0.4,
    }
    assert journal.spent() == pytest.approx(0.6)


def test_alone_answers_are_found_out_of_the_index_and_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every few answers are folded into the index; killed at any time, nothing is lost or counted twice."""
    monkeypatch.setattr("pipeline.models.journal._UNFOLDED", 7)
    path = tmp_path / "journal.db"
    alone = Journal(path, alone=True)
    for index in range(40):
        alone.put(f"key{index}", "sample", "m", Answer(str(index), "stop", 9), 0.25)
        if index % 5 == 0:
            alone.put(f"key{index // 2}", "again", "m", Answer("again", "stop", 9), 0.5)
        replaced = {at // 2 for at in range(0, index + 1, 5)}
        for asked in range(42):
            expected = "again" if asked in replaced else str(asked)
            assert alone.get(f"key{asked}") == (Answer(expected, "stop", 9) if asked <= index else None), (index, asked)
        money = {
            "again": (len(replaced), 0.5 * len(replaced)),
            "sample": (index + 1 - len(replaced), 0.25 * (index + 1)),
        }
        # Nobody closed it: what another process sees now is what a kill would leave.
        for other in (alone, Journal(path)) if index % 13 == 0 else (alone,):
            assert other.money() == money
            assert other.made() == index + 1 + len(replaced)


BEFORE = (
    "CREATE TABLE answers (key TEXT PRIMARY KEY, stage TEXT NOT NULL, model TEXT NOT NULL, answer TEXT NOT NULL, "
    "cost_usd REAL NOT NULL, at REAL NOT NULL)",
    "CREATE INDEX money ON answers (stage, cost_usd)",
    "CREATE TABLE charges (stage TEXT NOT NULL, model TEXT NOT NULL, outcome TEXT NOT NULL, cost_usd REAL NOT NULL, "
    "certain INTEGER NOT NULL, at REAL NOT NULL)",
    "CREATE TABLE collected (custom_id TEXT PRIMARY KEY)",
    "INSERT INTO charges VALUES ('revise', 'm', 'timed_out', 1.0, 0, 0)",
)


@pytest.mark.parametrize("alone", [False, True])
def test_a_journal_of_version_1_is_read_and_goes_on(tmp_path: Path, alone: bool) -> None:
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in BEFORE:
            db.execute(statement)
        for index in range(20):
            answer = json.dumps({"text": str(index), "finish": "stop", "max_tokens": 9})
            db.execute("INSERT INTO answers VALUES (?, 'sample', 'm', ?, 0.25, 0)", (f"key{index}", answer))
        assert journal_tables.spent(db) == {"sample": (20, 5 * 10**12)}
    for number in range(2):
        opened = Journal(path, alone=alone)
        assert all(opened.get(f"key{index}") == Answer(str(index), "stop", 9) for index in range(1, 20))
        opened.put("key0", "sample", "m", Answer("again", "stop", 10), 0.5)
        opened.put(f"new{number}", "revise", "m", Answer("new", "stop", 9), 0.125)
        assert opened.get("key0") == Answer("again", "stop", 10)
        assert opened.calls() == {"revise": 1 + number, "sample": 20}
        assert opened.spent() == 5 + 1 + (1 + number) * 0.625
        opened.close()


def test_answers_that_somebody_took_out_are_forgotten_and_others_take_their_rows(journal: Journal) -> None:
    for index in range(9):
        journal.put(f"key{index}", "sample", "m", Answer(str(index), "stop", 9), 0.25)
    journal.close()
    Journal(journal.path).close()
    with closing(sqlite3.connect(journal.path, isolation_level=None)) as db:
        db.execute("DELETE FROM answers WHERE rowid > 5")
    again = Journal(journal.path)
    again.put("other", "sample", "m", Answer("other", "stop", 9), 0.25)
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
    def put(name: str) -> None:
        for index in range(50):
            journal.put(f"{name}{index}", "sample", "m", Answer(name, "stop", 9), 0.5)

    threads = [threading.Thread(target=put, args=(name,)) for name in "abcd"]
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
    journal.put("b", "sample", "m", Answer("more", "stop", 9), 0)
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
        journal.put(f"key{index}", "sample", "m", Answer("x" * 700, "stop", 9), 0.1)
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
        fresh.put("key", "sample", "m", Answer("new", "stop", 9), 0)
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
        journal.put(f"key{index}", "sample", "m", Answer("x" * 700, "stop", 9), 0.1)
    journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    journal.put("late", "sample", "m", Answer("in the log alone", "stop", 9), 0.1)
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
    journal.put("key", "sample", "m", Answer("x", "stop", 9), 0)
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

    monkeypatch.setattr(journal_file, "check", busy)
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
    journal.put("key", "sample", "m", Answer("x", "stop", 9), 0)
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match="full") as caught:
        journal.put("big", "sample", "m", Answer("x" * 100_000, "stop", 9), 0)
    assert str(journal.path) in str(caught.value)
    assert journal.get("key") == Answer("x", "stop", 9)
    assert journal.get("big") is None
