"""Commits of the journal: shared by many callers, awaited by each, never lost; and what is paid besides answers."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import time
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StorageError
from pipeline.models.event_loop import event_loop, run
from pipeline.models.journal import Answer, Journal
from tests.conftest import ROOT, child_environment


@pytest.fixture(params=[False, True], ids=["one machine", "across machines"])
def journal(tmp_path: Path, request: pytest.FixtureRequest) -> Journal:
    return Journal(tmp_path / "journal.db", across_machines=request.param)


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

    def slowly(self: Journal, records: list[Any]) -> None:
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


def test_the_event_loop_does_not_wait_for_somebody_who_writes(journal: Journal) -> None:
    with closing(sqlite3.connect(journal.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = run_soon(journal.keep("key", "sample", "m", Answer("x", "stop", 9), 0.5))
        assert run(asyncio.sleep(0.05, "goes on")) == "goes on"
        assert journal.get("key") is None
        assert not waiting.done()
        other.execute("COMMIT")
    waiting.result(timeout=10)
    assert journal.calls() == {"sample": 1}


def test_of_two_answers_to_a_key_in_one_commit_the_second_is_kept_and_both_were_paid(journal: Journal) -> None:
    async def twice() -> None:
        first, second = (journal.keep("key", "sample", "m", Answer(text, "stop", 9), 0.5) for text in ("a", "b"))
        await asyncio.gather(first, second, journal.keep("other", "sample", "m", Answer("c", "stop", 9), 0.25))

    run(twice())
    assert journal.get("key") == Answer("b", "stop", 9)
    assert (journal.money(), journal.all_calls()) == ({"sample": (2, 1.25)}, 3)


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


def test_what_is_pending_when_the_interpreter_ends_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    child = f"""
import asyncio, threading, time
from pathlib import Path
from pipeline.models.journal import Answer, Journal
from pipeline.models.event_loop import event_loop

journal, given = Journal(Path({str(path)!r})), threading.Event()

async def give_and_hang():
    keeping = [asyncio.ensure_future(journal.keep(key, "sample", "m", Answer(key, "stop", 9), 0.5)) for key in "abc"]
    await asyncio.sleep(0)
    given.set()
    time.sleep(60)

asyncio.run_coroutine_threadsafe(give_and_hang(), event_loop())
given.wait()
"""
    subprocess.run([sys.executable, "-c", child], cwd=ROOT, env=child_environment(), check=True, timeout=50)
    assert [Journal(path).get(key) for key in "abc"] == [Answer(key, "stop", 9) for key in "abc"]


def test_a_call_that_began_is_charged_until_it_ends(journal: Journal) -> None:
    async def calls() -> None:
        answered, failed, _ = [await journal.begin("sample", "m", 1.0) for _ in range(3)]
        assert (journal.spent(), journal.uncertain(), journal.all_calls()) == (3, 3, 3)
        await journal.keep("key", "sample", "m", Answer("x", "stop", 9), 0.25, began=answered)
        await journal.charge("sample", "m", "refused", 0.0, began=failed)

    run(calls())
    # What a kill leaves: the third may have been billed.
    assert (journal.spent(), journal.uncertain(), journal.all_calls()) == (1.25, 1, 3)
    assert journal.money() == {"sample": (1, 0.25)}


def test_charges_are_money_and_calls_but_no_answers(journal: Journal) -> None:
    async def charge() -> None:
        await journal.charge("sample", "m", "refused", 0.25)
        await journal.charge("revise", "m", "timed_out", 1.0, certain=False)
        await journal.charge("sample", "m", "rate_limited", 0.0)

    run(journal.keep("key", "sample", "m", Answer("x", "stop", 9), 0.5))
    run(charge())
    assert journal.calls() == {"sample": 1}
    assert journal.money() == {"sample": (1, 0.75)}
    assert (journal.spent(), journal.uncertain(), journal.all_calls()) == (1.75, 1.0, 4)
    run(journal.keep("key", "sample", "m", Answer("y", "stop", 9), 0.5))
    assert (journal.spent(), journal.all_calls()) == (2.25, 5)
