"""The ledger of batches: what it holds, what it lets go, and what happens to a damaged one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.models.batch.ledger import BatchLedger, Item, unfinished


def test_a_batch_from_intent_to_end(tmp_path: Path) -> None:
    ledger = BatchLedger(tmp_path / "batches.db")
    ledger.intend("k", "openai/m", ["c", "a", "b"])
    assert ledger.batch("k").id is None and ledger.find("a") == Item("k", None)
    ledger.name("k", "batch_1")
    ledger.saw("k", "in_progress", 1)
    ledger.keep("k", [("a", '{"text": "\\ud800"}')])
    ledger.close()
    # Another process.
    ledger = BatchLedger(tmp_path / "batches.db")
    found = ledger.batch("k")
    assert (found.id, found.state, found.done, found.size) == ("batch_1", "in_progress", 1, 3)
    assert ledger.custom_ids("k") == ["c", "a", "b"]
    assert ledger.find("a") == Item("k", '{"text": "\\ud800"}') and ledger.ids() == {"batch_1"}
    assert [batch.key for batch in unfinished(tmp_path)] == ["k"]
    ledger.saw("k", "\x1b[2J not a word", 1)
    assert ledger.batch("k").state == "unknown"
    ledger.finish("k")
    assert ledger.find("b") is None and ledger.find("a") is not None
    assert not unfinished(tmp_path)


def test_a_request_is_in_one_batch_at_a_time(tmp_path: Path) -> None:
    ledger = BatchLedger(tmp_path / "batches.db")
    ledger.intend("k", "openai/m", ["a", "b"])
    with pytest.raises(StorageError):
        ledger.intend("l", "openai/m", ["c", "a"])
    # The second intent left nothing.
    assert ledger.find("c") is None and [batch.key for batch in ledger.unfinished()] == ["k"]
    # What is still at the provider can't be forgotten.
    ledger.forget("a")
    assert ledger.find("a") == Item("k", None)
    ledger.keep("k", [("a", "{}")])
    ledger.finish("k")
    ledger.forget("a")
    ledger.intend("l", "openai/m", ["c", "a", "b"])
    assert ledger.find("a") == Item("l", None)


def test_results_of_another_batch_are_not_kept(tmp_path: Path) -> None:
    ledger = BatchLedger(tmp_path / "batches.db")
    ledger.intend("k", "openai/m", ["a"])
    ledger.intend("l", "openai/m", ["b"])
    ledger.keep("l", [("a", "{}")])
    assert ledger.find("a") == Item("k", None)


@pytest.mark.parametrize("content", [b"not a database, but long enough to have a header of a hundred bytes" * 3, b"x"])
def test_a_damaged_ledger_is_told_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "batches.db"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"batches\.db: the ledger of batches is damaged"):
        BatchLedger(path)
    assert path.read_bytes() == content


def test_no_ledger_is_made_by_looking_for_one(tmp_path: Path) -> None:
    assert unfinished(tmp_path) == []
    assert not list(tmp_path.iterdir())
