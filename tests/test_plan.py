"""The plan: shards, ids, duplicates, and what a run that can't work says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import sources
from pipeline.config.loading import load_config
from pipeline.config.settings import CurationConfig
from pipeline.errors import ConfigError, InputError
from pipeline.run import plan as plan_module
from pipeline.run.plan import Plan, plan_shards
from pipeline.run.progress import read as read_progress
from pipeline.schema import row_id
from pipeline.storage import stage_files
from tests.conftest import ROOT, child_environment


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def pairs(count: int) -> list[dict[str, str]]:
    return [{"question": f"question {number}?", "answer": f"answer {number}"} for number in range(count)]


def config(path: Path, **flags: Any) -> CurationConfig:
    values = {"source.name": "jsonl", "source.input": str(path), "source.shard_rows": 4}
    return load_config(flags=values | {key.replace("__", "."): value for key, value in flags.items()})


def planned(config: CurationConfig, work: Path) -> tuple[Plan, list[str]]:
    warnings: list[str] = []
    source = sources.resolve_source(config.source, warnings.append)
    adapters = sources.open_adapters(config.source, source, warnings.append)
    return plan_shards(config, source, adapters, work, warnings.append), warnings


def rows_of(work: Path, plan: Plan) -> pa.Table:
    return pa.concat_tables([stage_files.read(f) for f in stage_files.inspect_all(work, "source", plan.shards)])


def rejects_of(work: Path, plan: Plan) -> list[dict[str, Any]]:
    tables = [stage_files.read_rejects(work, "source", shard) for shard in range(plan.shards)]
    return pa.concat_tables(tables).to_pylist()


def times(work: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (work / "source").glob("*")}


def test_every_row_is_in_a_shard_in_order(tmp_path: Path) -> None:
    plan, _ = planned(config(write(tmp_path / "in.jsonl", pairs(10))), tmp_path / "work")
    assert plan == Plan(shards=3, rows=10)
    files = stage_files.inspect_all(tmp_path / "work", "source", 3)
    assert [file.rows for file in files] == [4, 4, 2]
    rows = rows_of(tmp_path / "work", plan)
    assert rows["source_row"].to_pylist() == list(range(10))
    assert rows["reference"].to_pylist() == [f"answer {number}" for number in range(10)]
    assert rows["messages"][3].as_py() == [{"role": "user", "content": "question 3?"}]
    assert read_progress(tmp_path / "work")["source"].done == 10


def test_duplicates_leave_with_their_place_also_across_shards(tmp_path: Path) -> None:
    rows = pairs(6)
    path = write(tmp_path / "in.jsonl", [*rows, rows[0], rows[5] | {"answer": "another answer"}, *pairs(7)[6:]])
    plan, _ = planned(config(path), tmp_path / "work")
    rejects = rejects_of(tmp_path / "work", plan)
    assert [(row["reason"], row["source_row"]) for row in rejects] == [("duplicate_query", 6), ("duplicate_query", 7)]
    assert [json.loads(row["evidence"])["where"] for row in rejects] == [f"{path.name}:7", f"{path.name}:8"]
    assert [row["reference"] for row in rejects] == ["answer 0", "another answer"]
    kept = rows_of(tmp_path / "work", plan)["source_row"].to_pylist()
    assert kept == [0, 1, 2, 3, 4, 5, 8]
    assert plan.rows == len(kept) + len(rejects) == 9


def test_bad_rows_leave_with_reason_place_expected_and_got(tmp_path: Path) -> None:
    good = pairs(3)
    bad = [
        "{broken\n",
        {"question": "no answer?"},
        "[1, 2]\n",
        {"question": "q?", "answer": ""},
        {"question": 5, "answer": "a"},
    ]
    path = write(tmp_path / "in.jsonl", [good[0], *bad, *good[1:]])
    plan, _ = planned(config(path), tmp_path / "work")
    assert rows_of(tmp_path / "work", plan)["source_row"].to_pylist() == [0, 6, 7]
    rejects = rejects_of(tmp_path / "work", plan)
    evidence = [json.loads(row["evidence"]) for row in rejects]
    assert [item["where"] for item in evidence] == [f"{path.name}:{line}" for line in range(2, 7)]
    assert len({row["id"] for row in rejects}) == 5
    assert "text in 'answer'" in evidence[1]["expected"]
    assert evidence[1]["got"] == "question: string"


@pytest.mark.parametrize("count", [1, 7])
def test_when_no_row_is_usable_the_first_is_named(tmp_path: Path, count: int) -> None:
    path = write(tmp_path / "in.jsonl", [{"question": "no answer?", "score": 3}] * count)
    fields = {"prompt": "question", "reference": "answer"}
    with pytest.raises(InputError) as caught:
        planned(config(path, source__fields=fields), tmp_path / "work")
    message = str(caught.value)
    assert message.startswith(
        f"{path}:1: wrong_shape: expected text in 'answer', got question: string, score: number; "
    )
    assert message.endswith("its only row is not usable" if count == 1 else "none of 7 rows is usable")
    assert not (tmp_path / "work" / "plan.json").exists()


def test_a_file_of_another_kind_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "_ALL_BAD_ROWS", 100)
    path = write(tmp_path / "in.jsonl", [{"left": "a"}] * 5000)
    with pytest.raises(InputError, match=r"in.jsonl:1: wrong_shape: .* none of 100 rows is usable"):
        planned(config(path), tmp_path / "work")


def test_when_no_shape_fits_the_known_ones_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", [{"left": "a", "right": "b"}] * 3)
    with pytest.raises(InputError) as caught:
        planned(config(path), tmp_path / "work")
    assert "in.jsonl" in str(caught.value)
    assert "question + answer" in str(caught.value) and "left: string, right: string" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_hh_rlhf_rows_that_are_none_name_the_line(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", ["\n", *pairs(2)])
    with pytest.raises(InputError, match=r"in.jsonl:2: .*expected .*got question: string, answer: string; none of 2"):
        planned(config(path, source__name="hh-rlhf"), tmp_path / "work")


@pytest.mark.parametrize("name", ["hh-rlhf", "jsonl"])
@pytest.mark.parametrize(("rows", "says"), [([], "empty, 0 bytes"), (["\n\n"], "no rows in it")])
def test_a_source_without_rows_is_named(tmp_path: Path, name: str, rows: list[str], says: str) -> None:
    path = write(tmp_path / "in.jsonl", rows)
    with pytest.raises(InputError) as caught:
        planned(config(path, source__name=name), tmp_path / "work")
    assert str(caught.value).startswith(f"{path}: {says}; expected ")
    assert not (tmp_path / "work" / "plan.json").exists()


def test_a_plan_that_stands_is_not_made_again(tmp_path: Path) -> None:
    setting = config(write(tmp_path / "in.jsonl", pairs(10)))
    first, _ = planned(setting, tmp_path / "work")
    before = times(tmp_path / "work")
    assert planned(setting, tmp_path / "work")[0] == first
    assert times(tmp_path / "work") == before
    # A shard that is gone is made again, and that one alone.
    stage_files.file_path(tmp_path / "work", "source", 1).unlink()
    assert planned(setting, tmp_path / "work")[0] == first
    after = times(tmp_path / "work")
    assert {name for name in after if after[name] != before[name]} == {"00001.arrow", "00001.json"}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"digest": 1, "shards": "two", "rows": 3}'])
def test_a_torn_plan_is_made_again(tmp_path: Path, content: str) -> None:
    setting = config(write(tmp_path / "in.jsonl", pairs(10)))
    first, _ = planned(setting, tmp_path / "work")
    (tmp_path / "work" / "plan.json").write_text(content)
    assert planned(setting, tmp_path / "work")[0] == first


def test_a_higher_limit_only_adds_shards(tmp_path: Path) -> None:
    path, work = write(tmp_path / "in.jsonl", pairs(20)), tmp_path / "work"
    assert planned(config(path, source__limit=10), work)[0] == Plan(3, 10)
    before = times(work)
    plan, _ = planned(config(path, source__limit=17), work)
    assert plan == Plan(5, 17)
    after = times(work)
    # The third shard was half full; the first two are as they were.
    full = [f"0000{shard}.{suffix}" for shard in (0, 1) for suffix in ("arrow", "json")]
    assert {name: after[name] for name in full} == {name: before[name] for name in full}
    assert after["00002.arrow"] != before["00002.arrow"]
    assert rows_of(work, plan)["source_row"].to_pylist() == list(range(17))


def test_a_lower_limit_counts_only_what_it_lets_in(tmp_path: Path) -> None:
    path, work = write(tmp_path / "in.jsonl", pairs(20)), tmp_path / "work"
    planned(config(path), work)
    plan, _ = planned(config(path, source__limit=6), work)
    assert plan == Plan(2, 6)
    assert rows_of(work, plan).num_rows == 6
    assert read_progress(work)["source"].total == 6


def test_another_source_or_field_makes_all_shards_anew(tmp_path: Path) -> None:
    rows = [row | {"other": f"other {row['answer']}"} for row in pairs(6)]
    path, work = write(tmp_path / "in.jsonl", rows), tmp_path / "work"
    planned(config(path), work)
    fields = {"prompt": "question", "reference": "other"}
    plan, _ = planned(config(path, source__fields=fields), work)
    assert rows_of(work, plan)["reference"][0].as_py() == "other answer 0"
    write(path, [{"question": "new?", "answer": "new"}])
    plan, _ = planned(config(path), work)
    assert plan == Plan(1, 1)
    assert rows_of(work, plan)["reference"].to_pylist() == ["new"]


def test_fields_that_are_guessed_are_told_and_given_ones_are_not(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", [{"instruction": "Add.", "input": "2 and 2", "output": "4"}])
    plan, warnings = planned(config(path), tmp_path / "a")
    assert any("instruction" in warning and "output" in warning for warning in warnings)
    assert rows_of(tmp_path / "a", plan)["messages"][0].as_py()[0]["content"] == "Add.\n\n2 and 2"
    fields = {"prompt": "input", "reference": "output"}
    plan, warnings = planned(config(path, source__fields=fields), tmp_path / "b")
    assert not [warning for warning in warnings if "instruction" in warning]
    assert rows_of(tmp_path / "b", plan)["messages"][0].as_py()[0]["content"] == "2 and 2"
    with pytest.raises(ConfigError, match="did you mean reference"):
        planned(config(path, source__fields={"prompt": "input", "referense": "output"}), tmp_path / "c")


def test_ids_are_unique_and_what_they_were_in_the_first_version() -> None:
    turns = [{"role": "user", "content": "Blue? é\ud800"}]
    ids = {
        row_id(source, split, messages, index)
        for source in ("a", "b")
        for split in ("train", "test")
        for messages in (turns, [*turns, turns[0]], [{"role": "user", "content": "Red?"}])
        for index in (0, 1)
    }
    assert len(ids) == 24
    # Written down: published ids must not change from version to version.
    assert row_id("jsonl", "train", [{"role": "user", "content": "2 + 2?"}], 0) == "586c7b44273d9b66"


PRINT_IDS = """
import sys
from pathlib import Path
from tests.test_plan import config, planned, rows_of
work = Path(sys.argv[2])
plan, _ = planned(config(Path(sys.argv[1])), work)
print(rows_of(work, plan)["id"].to_pylist(), [p.read_bytes() for p in sorted((work / "source").glob("*.json"))])
"""


def test_ids_and_bytes_do_not_depend_on_the_hash_seed(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", pairs(9))
    printed = set()
    for seed in ("1", "4242"):
        command = [sys.executable, "-c", PRINT_IDS, str(path), str(tmp_path / seed)]
        environment = child_environment(PYTHONHASHSEED=seed)
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        printed.add(done.stdout)
    assert len(printed) == 1
    plan, _ = planned(config(path), tmp_path / "work")
    ids = rows_of(tmp_path / "work", plan)["id"].to_pylist()
    assert len(set(ids)) == 9
    assert printed.pop().startswith(str(ids))


def test_a_plan_whose_shards_another_began_to_write_over_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    first = config(write(tmp_path / "first.jsonl", pairs(10)))
    planned(first, work)
    other = [{"question": f"other {number}?", "answer": "yes"} for number in range(10)]
    commit = plan_module._commit

    def killed(work: Path, shard: int, *arguments: Any) -> None:
        if shard == 1:
            raise KeyboardInterrupt
        commit(work, shard, *arguments)

    monkeypatch.setattr(plan_module, "_commit", killed)
    with pytest.raises(KeyboardInterrupt):
        planned(config(write(tmp_path / "other.jsonl", other)), work)
    monkeypatch.undo()
    plan, _ = planned(first, work)
    assert rows_of(work, plan)["reference"].to_pylist() == [row["answer"] for row in pairs(10)]
