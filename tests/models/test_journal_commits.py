"""Commits of the journal: shared by many callers, awaited by each, never lost; and what is paid besides answers."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StorageError
from pipeline.models.event_loop import event_loop, run
from pipeline.models.journal import Answer, Journal
from pipeline.models.journal_records import Record
from tests.conftest import ROOT, child_environment


@pytest.fixture(params=[False, True], ids=["shared", "alone"])
def journal(tmp_path: Path, request: pytest.FixtureRequest) -> Journal:
    return Journal(tmp_path / "journal.db", alone=request.param)


def run_soon(work: Coroutine[Any, Any, None]) -> Future[None]:
    return asyncio.run_coroutine_threadsafe(work, event_loop())


def kept(journal: Journal, keys: range, *, cost: float = 0.5) -> list[object]:
    async def keep() -> list[object]:
        rows = (journal.keep(f"key{key}", "sample", "m", Answer(str(key), "stop", 9), cost) for key in keys)
        return await asyncio.gather(*rows, return_exceptions=True)

    return run(keep())


def test_many_at_a_time_share_commits_and_each_is_on_disk_when_its_caller_goes_on(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    write = Journal._write

    def slowly(self: Journal, records: list[Record]) -> None:
        groups.append(len(records))
        time.sleep(0.02)
        write(self, records)

    monkeypatch.setattr(Journal, "_write", slowly)
    other = sqlite3.connect(journal.path, check_same_thread=False)

    async def keep(key: int) -> bool:
        await journal.keep(f"key{key}", "sample", "m", Answer(str(key), "stop", 9), 0.5)
        return other.execute("SELECT 1 FROM answers WHERE key = ?", (f"key{key}",)).fetchone() == (1,)

    async def all_at_once() -> list[bool]:
        return await asyncio.gather(*(keep(key) for key in range(300)))

    assert all(run(all_at_once()))
    other.close()
    assert sum(groups) == 300
    assert len(groups) <= 3
    assert journal.money() == {"sample": (300, 150.0)}


def test_one_alone_does_not_wait_for_company(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[int] = []
    write = Journal._write
    monkeypatch.setattr(Journal, "_write", lambda self, records: (groups.append(len(records)), write(self, records)))
    for key in range(5):
        kept(journal, range(key, key + 1))
        assert journal.get(f"key{key}") == Answer(str(key), "stop", 9)
    assert groups == [1] * 5


def test_a_few_are_written_where_they_come_from_and_what_takes_long_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    write = Journal._write

    def seen(self: Journal, records: list[Record]) -> None:
        threads.append(threading.current_thread().name.partition("_")[0])
        write(self, records)

    monkeypatch.setattr(Journal, "_write", seen)
    monkeypatch.setattr("pipeline.models.journal._UNFOLDED", 5)
    journal = Journal(tmp_path / "journal.db", alone=True)
    kept(journal, range(3))
    # With these there would be six out of the index: that is brought up to date first.
    kept(journal, range(3, 6))
    with journal._lock:
        # The event loop does not wait for somebody who writes.
        waiting = run_soon(journal.keep("key6", "sample", "m", Answer("6", "stop", 9), 0.5))
        assert run(asyncio.sleep(0.01, "goes on")) == "goes on"
        assert not waiting.done()
    waiting.result(timeout=10)
    kept(journal, range(7, 8))
    assert threads == ["model-calls", "journal", "journal", "model-calls"]
    assert journal.calls() == {"sample": 8}
    kept(Journal(tmp_path / "other.db"), range(1))
    assert threads[-1] == "journal"


def test_of_two_answers_to_a_key_in_one_commit_the_second_is_kept_and_both_were_paid(journal: Journal) -> None:
    async def twice() -> None:
        first, second = (journal.keep("key", "sample", "m", Answer(text, "stop", 9), 0.5) for text in ("a", "b"))
        await asyncio.gather(first, second, journal.keep("other", "sample", "m", Answer("c", "stop", 9), 0.25))

    run(twice())
    assert journal.get("key") == Answer("b", "stop", 9)
    assert (journal.money(), journal.made()) == ({"sample": (2, 1.25)}, 3)


def test_a_commit_that_fails_fails_for_all_who_wait_for_it(journal: Journal) -> None:
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")
    ended = kept(journal, range(3000))
    failed = [result for result in ended if isinstance(result, StorageError)]
    assert failed
    assert {type(result) for result in ended} <= {StorageError, type(None)}
    assert journal.calls() == ({"sample": 3000 - len(failed)} if len(failed) < 3000 else {})


def test_what_a_cancelled_caller_was_about_to_keep_is_kept(journal: Journal) -> None:
    async def keep_and_leave() -> None:
        task = asyncio.ensure_future(journal.keep("key", "sample", "m", Answer("x", "stop", 9), 0.5))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(keep_and_leave())
    journal.close()
    assert Journal(journal.path).get("key") == Answer("x", "stop", 9)


@pytest.mark.parametrize("alone", [False, True])
def test_what_is_pending_when_the_interpreter_ends_is_kept(tmp_path: Path, alone: bool) -> None:
    path = tmp_path / "journal.db"
    child = f"""
import asyncio, threading, time
from pathlib import Path
from pipeline.models.journal import Answer, Journal
from pipeline.models.journal_records import answered
from pipeline.models.event_loop import event_loop

journal, given = Journal(Path({str(path)!r}), alone={alone}), threading.Event()

async def give_and_hang():
    journal._enqueue(answered("key", "sample", "m", Answer("x", "stop", 9), 0.5, None, None))
    given.set()
    time.sleep(60)

asyncio.run_coroutine_threadsafe(give_and_hang(), event_loop())
given.wait()
"""
    subprocess.run([sys.executable, "-c", child], cwd=ROOT, env=child_environment(), check=True, timeout=50)
    assert Journal(path).get("key") == Answer("x", "stop", 9)


def test_charges_are_money_and_calls_but_no_answers(journal: Journal) -> None:
    async def charge() -> None:
        await journal.charge("sample", "m", "refused", 0.25)
        await journal.charge("revise", "m", "timed_out", 1.0, certain=False)
        await journal.charge("sample", "m", "rate_limited", 0.0)

    journal.put("key", "sample", "m", Answer("x", "stop", 9), 0.5)
    run(charge())
    assert journal.calls() == {"sample": 1}
    assert journal.money() == {"sample": (1, 0.75)}
    assert (journal.spent(), journal.uncertain(), journal.made()) == (1.75, 1.0, 4)
    journal.put("key", "sample", "m", Answer("y", "stop", 9), 0.5)
    assert (journal.spent(), journal.made()) == (2.25, 5)
