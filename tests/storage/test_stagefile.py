"""A shard's files: done or not done, damaged or whole, and the ledger of what left."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import schema
from pipeline.errors import StorageError
from pipeline.storage import stage_files
from pipeline.storage.stage_files import Reject, StageFile
from tests.conftest import ROOT, child_environment
from tests.storage.rows import commit, table

NOTHING = schema.REJECTED.empty_table()


def facts_path(file: StageFile) -> Path:
    return file.path.with_suffix(".json")


def test_what_is_committed_is_found_and_read(tmp_path: Path) -> None:
    file = commit(tmp_path)
    assert stage_files.inspect(tmp_path, "score", 4) == file
    assert (file.digest, file.rows, file.rejected) == ("d1", 17, 3)
    assert stage_files.read(file).equals(table("score", 3, 17))
    assert stage_files.read(file, ["id", "reward_reference"]).column_names == ["id", "reward_reference"]
    assert stage_files.read_rejects(tmp_path, "score", 4)["source_row"].to_pylist() == [0, 1, 2]
    assert stage_files.inspect(tmp_path, "score", 5) is None
    assert stage_files.read_rejects(tmp_path, "score", 5).equals(NOTHING)


def test_a_later_commit_leaves_nothing_of_the_earlier(tmp_path: Path) -> None:
    commit(tmp_path)
    file = commit(tmp_path, rejects=0, digest="d2")
    assert stage_files.inspect(tmp_path, "score", 4) == file
    assert stage_files.read_rejects(tmp_path, "score", 4).num_rows == 0
    assert stage_files.read(file).num_rows == 20


@pytest.mark.parametrize(
    "facts",
    [None, "", "{", "[]", "null", "7", '{"digest": "d1"}', '{"digest": "d1", "content": "c", "rows": 1}', "\0\0\0\0"],
)
def test_without_whole_facts_a_shard_is_not_done(tmp_path: Path, facts: str | None) -> None:
    file = commit(tmp_path)
    facts_path(file).unlink()
    if facts is not None:
        facts_path(file).write_text(facts)
    assert stage_files.inspect(tmp_path, "score", 4) is None
    with pytest.raises(StorageError, match=r"score/00000.arrow: gone or damaged; run again"):
        stage_files.inspect_all(tmp_path, "score", 5)


@pytest.mark.parametrize("suffix", [".arrow", ".rejects.arrow"])
def test_without_its_files_a_shard_is_not_done(tmp_path: Path, suffix: str) -> None:
    file = commit(tmp_path)
    file.path.with_suffix(suffix).unlink()
    assert stage_files.inspect(tmp_path, "score", 4) is None


def test_damaged_rows_are_named_and_never_read_as_something_else(tmp_path: Path) -> None:
    """Bits flipped anywhere, cuts anywhere: the file is refused."""
    file = commit(tmp_path)
    whole = file.path.read_bytes()
    draw = random.Random(7)
    damaged = [whole[:cut] for cut in (0, 3, len(whole) // 2, len(whole) - 1)]
    for _ in range(300):
        position = draw.randrange(len(whole))
        damaged.append(whole[:position] + bytes([whole[position] ^ (1 << draw.randrange(8))]) + whole[position + 1 :])
    for raw in damaged:
        file.path.write_bytes(raw)
        with pytest.raises(StorageError) as caught:
            stage_files.read(file)
        assert str(caught.value).startswith(f"{file.path}: damaged (")
        assert "\n" not in str(caught.value)


def test_damaged_rejects_are_named_wherever_the_damage_is(tmp_path: Path) -> None:
    commit(tmp_path)
    path = stage_files.rejects_path(tmp_path, "score", 4)
    facts = path.with_name("00004.json")
    whole, known = path.read_bytes(), facts.read_bytes()
    flipped = [whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1 :] for n in range(0, len(whole), 17)]
    for raw in [whole[:100], b"", *flipped]:
        path.write_bytes(raw)
        facts.write_bytes(known)
        with pytest.raises(StorageError, match=r"00004.rejects.arrow: damaged"):
            stage_files.read_rejects(tmp_path, "score", 4)
        assert stage_files.inspect(tmp_path, "score", 4) is None, "the next run makes it again"


def test_rows_that_are_gone_when_they_are_read_are_named(tmp_path: Path) -> None:
    file = commit(tmp_path)
    file.path.unlink()
    with pytest.raises(StorageError, match=r"00004.arrow"):
        stage_files.read(file)


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.storage.rows import commit
replace, seen = os.replace, []
def killing(source, target):
    if str(target).endswith(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = killing
commit(Path(sys.argv[1]), digest="d2", rows=30)
"""


@pytest.mark.parametrize("before", ["00004.rejects.arrow", "00004.arrow", "00004.json"])
def test_killed_before_its_facts_a_shard_is_not_done(tmp_path: Path, before: str) -> None:
    commit(tmp_path)
    command = [sys.executable, "-c", KILLED, str(tmp_path), before]
    assert subprocess.run(command, cwd=ROOT, env=child_environment(), check=False).returncode == -signal.SIGKILL
    assert stage_files.inspect(tmp_path, "score", 4) is None
    file = commit(tmp_path, digest="d2", rows=30)
    assert stage_files.inspect(tmp_path, "score", 4) == file
    assert stage_files.read(file).num_rows == 27


FULL = """
import resource, signal, sys
from pathlib import Path
from pipeline.errors import StorageError
from tests.storage.rows import commit
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    commit(Path(sys.argv[1]), rows=400)
except StorageError as error:
    print(error)
"""


def test_a_disk_that_takes_no_more_is_one_named_error(tmp_path: Path) -> None:
    """The kernel itself refuses, in the middle of a write."""
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(tmp_path / "score" / "00004"))
    assert "can't be written" in done.stdout and done.stdout.count("\n") == 1
    assert not [path.name for path in (tmp_path / "score").iterdir() if path.name != "00004.rejects.arrow"]


def test_equal_rows_have_equal_content_however_they_are_chunked(tmp_path: Path) -> None:
    whole = table("label", 0, 100)
    parts = pa.concat_tables([whole.slice(start, 9) for start in range(0, 100, 9)])
    assert parts["id"].num_chunks > 1
    contents = {
        stage_files.commit(tmp_path / name, "label", 0, "d", rows, NOTHING).content
        for name, rows in (("a", whole), ("b", parts), ("c", table("label", 0, 100)))
    }
    assert len(contents) == 1
    other = stage_files.commit(tmp_path / "d", "label", 0, "d", table("label", 1, 100), NOTHING)
    assert other.content not in contents


def test_a_rerun_with_the_same_rows_has_the_same_content(tmp_path: Path) -> None:
    assert commit(tmp_path, digest="d1").content == commit(tmp_path, digest="d2").content


def test_a_reject_keeps_what_it_had_and_nothing_else() -> None:
    source = table("filter", 0, 5)
    rejects = [Reject(3, "too_far", {"distance": 0.9}, {"reward_revised": 0.25}), Reject(1, "empty", {})]
    ledger = stage_files.reject_table("filter", source, rejects).to_pylist()
    assert [row["source_row"] for row in ledger] == [3, 1]
    first = ledger[0]
    assert first["stage"] == "filter" and first["reason"] == "too_far"
    assert json.loads(first["evidence"]) == {"distance": 0.9}
    assert (first["reference"], first["initial"], first["revised"]) == ("reference 3", "initial 3", "revised 3")
    assert first["messages"] == [{"role": "user", "content": "question 3?"}]
    assert first["reward_reference"] == 3 / 8


def test_what_a_reject_gained_in_its_stage_is_kept() -> None:
    ledger = stage_files.reject_table(
        "revise", table("score", 0, 2), [Reject(0, "cut", {}, {"revised": "half", "diagnosis": "other"})]
    )
    assert ledger.schema.equals(schema.REJECTED)
    (row,) = ledger.to_pylist()
    assert (row["revised"], row["diagnosis"], row["initial"]) == ("half", "other", "initial 0")
    assert row["edit_distance"] is None and row["reward_revised"] is None


def test_a_reject_of_the_source_has_nothing_but_its_place() -> None:
    source = pa.Table.from_pylist([{"id": "a", "source_row": 7}], schema=schema.SOURCE)
    (row,) = stage_files.reject_table("source", source, [Reject(0, "wrong_shape", {"got": "x"})]).to_pylist()
    known = {name: value for name, value in row.items() if value is not None}
    assert known == {"id": "a", "source_row": 7, "stage": "source", "reason": "wrong_shape", "evidence": '{"got": "x"}'}


@pytest.mark.parametrize(
    "value", ["\ud800 lone", "a\0b", "\u202e", {"deep": ["\udfff"]}, float("nan"), Path("x"), b"\xff"]
)
def test_any_evidence_is_stored(tmp_path: Path, value: Any) -> None:
    source = table("source", 0, 1)
    ledger = stage_files.reject_table("source", source, [Reject(0, "odd", {"got": value})])
    stage_files.commit(tmp_path, "source", 0, "d", source, ledger)
    (text,) = stage_files.read_rejects(tmp_path, "source", 0)["evidence"].to_pylist()
    assert "got" in json.loads(text)
    if value == "a\0b":
        assert json.loads(text) == {"got": value}


def test_facts_that_cannot_be_removed_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would vouch for the new rows."""
    file = commit(tmp_path)

    def refuse(path: object, **named: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(StorageError, match=r"00004.json: can't be removed: Permission denied"):
        commit(tmp_path, digest="d2")
    monkeypatch.undo()
    assert stage_files.inspect(tmp_path, "score", 4) == file
    assert stage_files.read(file).num_rows == 17
