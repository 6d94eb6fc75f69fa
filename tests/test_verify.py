"""Verify: every single corruption is found and placed, and nothing is found in what is as it was published."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import open_dataset
from pipeline.cli.main import main
from pipeline.config.settings import CurationConfig
from pipeline.curate import curate, in_threads
from pipeline.dataset import manifest
from pipeline.dataset.verify import verify
from pipeline.run import publish
from tests.conftest import Silent
from tests.corruption import CORRUPTIONS, SIDES, foreign_shard, refit
from tests.pairs import data_set

# The whole trial, 200 corruptions of 10,000 rows, takes half an hour of one core: FIGA_VERIFY=0-49 does the first fifty.
FULL = os.environ.get("FIGA_VERIFY")
ROWS, SHARDS = (10_000, 8) if FULL else (160, 4)
CASES = [(name, fit) for name, (_, twice) in CORRUPTIONS.items() for fit in ((False, True) if twice else (False,))]
CASES += [("foreign shard", False), ("foreign shard", True)]


def _cases() -> list[tuple[int, str, bool]]:
    first, last = map(int, FULL.split("-")) if FULL else (0, len(CASES) - 1)
    return [(number, *CASES[number % len(CASES)]) for number in range(first, last + 1)]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    return data_set(tmp_path_factory.mktemp("clean") / "set", tiny_tokenizer, ROWS, rows_per_file=ROWS // SHARDS)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    """Another data set of the same settings."""
    return data_set(tmp_path_factory.mktemp("other") / "set", tiny_tokenizer, 40, rows_per_file=20, seed=1)


@pytest.fixture
def copy(clean: Path, tmp_path: Path) -> Iterator[Path]:
    out = tmp_path / "set"
    shutil.copytree(clean, out)
    yield out
    shutil.rmtree(out)


def test_nothing_is_found_in_a_clean_data_set(clean: Path, stranger: Path) -> None:
    report = verify(clean)
    assert [str(problem) for problem in report.problems] == []
    assert report.rows == report.labelled == ROWS
    assert verify(stranger).count == 0


@pytest.mark.parametrize(("seed", "name", "fit"), _cases())
def test_a_corruption_is_found(copy: Path, stranger: Path, seed: int, name: str, fit: bool) -> None:
    corrupt = foreign_shard(stranger) if name == "foreign shard" else CORRUPTIONS[name][0]
    where = corrupt(copy, random.Random(seed), fit)
    found = [str(problem) for problem in verify(copy, first=bool(FULL)).problems]
    assert found
    if not FULL:
        # A value that was changed inside a file that can be read is placed by row, whatever the hashes say. References
        # take no part in labels: only the file's hash covers them.
        placed = where.split(",")[0] if name == "reference" else where
        assert any(line.startswith(placed) for line in found), (where, found)


def test_a_changed_weight_is_placed_by_file_row_column_and_token(copy: Path) -> None:
    where = CORRUPTIONS["weight"][0](copy, random.Random(3), True)
    (problem,) = verify(copy).problems
    assert str(problem).startswith(f"{where}, column revised_weights: token ")
    assert "by the texts it is" in problem.what


@pytest.mark.parametrize("settings", [
    {"granularity": "word", "signal": "reward_weighted", "gamma": 0.25, "eos_weight": 0.5},
    {"granularity": "phrase", "signal": "bag_of_words", "template": "alpaca", "system": "Be brief."},
    {"template": "plain", "signal": "constant", "max_length": 30, "overlong": "mark"},
])  # fmt: skip
def test_other_settings_are_repeated_from_the_manifest(
    settings: dict[str, object], tiny_tokenizer: Path, tmp_path: Path
) -> None:
    out = data_set(tmp_path / "set", tiny_tokenizer, 20, **settings)
    assert verify(out).count == 0
    content = manifest.load(out) or {}
    # Settings that change nothing about the labels are told apart from the files' own, too.
    content["labels"]["gate"] = 0.7
    manifest.write(out, content)
    assert any("figa.labels" in problem.what for problem in verify(out).problems)


def test_files_of_earlier_versions_name_the_tokenizers_folder(
    tiny_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "redact_paths", lambda labels: labels)
    out = data_set(tmp_path / "set", tiny_tokenizer, 20)
    assert str(tiny_tokenizer).encode() in pq.read_schema(next((out / "data").iterdir())).metadata[b"figa.labels"]
    assert verify(out).count == 0


def test_a_sample_is_drawn_over_all_files_and_finds_what_lies_in_it(copy: Path) -> None:
    report = verify(copy, sample=7)
    assert (report.count, report.labelled, report.rows) == (0, 7, ROWS)
    assert verify(copy, sample=10 * ROWS).labelled == ROWS
    assert verify(copy, sample=0).labelled == 0
    for side in SIDES:
        CORRUPTIONS[f"{'' if side == 'revised' else 'initial '}op"][0](copy, random.Random(5), True)
    assert verify(copy, sample=0).count == 0
    assert verify(copy, sample=ROWS).count == 2


def test_another_tokenizer_is_refused_and_a_missing_one_is_bad_usage(
    copy: Path, tiny_tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(tiny_tokenizer, moved)
    assert verify(copy, tokenizer=str(moved)).count == 0
    template = moved / "chat_template.jinja"
    template.write_text(template.read_text("utf-8").replace("<|im_end|>\n", "<|im_end|>\n\n"), "utf-8")
    (problem,) = verify(copy, tokenizer=str(moved)).problems
    assert "template differ" in problem.what
    assert main(["verify", str(copy), "--tokenizer", str(tmp_path / "nowhere")]) == 2
    told = capsys.readouterr().err
    assert "nowhere" in told and "--no-labels" in told and told.count("\n") == 1
    assert main(["verify", str(copy), "--tokenizer", str(tmp_path / "nowhere"), "--no-labels"]) == 0


def test_exit_codes_and_json(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(copy)]) == 0
    assert "all is as the manifest says" in capsys.readouterr().out
    CORRUPTIONS["weight"][0](copy, random.Random(0), True)
    assert main(["verify", str(copy), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["problems"]) == (False, 1)
    assert report["first_problems"][0]["column"] == "revised_weights"
    assert main(["verify", str(tmp_path)]) == 2
    assert "no finished data set" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["verify", str(copy / "manifest.json")])
    assert "is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "figa-pipeline", "schema_version": "1.1"}'])
def test_a_manifest_that_is_none_is_told(copy: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / manifest.NAME).write_text(content, "utf-8")
    assert main(["verify", str(copy)]) == 1
    streams = capsys.readouterr()
    assert "manifest.json" in streams.out + streams.err


def test_no_file_outside_the_folder_is_opened(copy: Path) -> None:
    content = manifest.load(copy) or {}
    content["files"][0]["path"] = "../../etc/passwd"
    manifest.write(copy, content)
    assert any("outside the folder" in problem.what for problem in verify(copy).problems)


def test_an_empty_data_set_is_a_valid_one(tiny_tokenizer: Path, tmp_path: Path) -> None:
    out = data_set(tmp_path / "set", tiny_tokenizer, 0)
    assert verify(out).count == verify(out, sample=5).count == 0


def test_a_missing_file_and_a_cut_one_are_told(copy: Path) -> None:
    first, second, *_ = sorted((copy / "data").glob("*.parquet"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-100])
    (copy / "rejected" / "sample.parquet").write_bytes(b"")
    report = verify(copy)
    told = "\n".join(map(str, report.problems))
    # Each fault is told once, and rows that could not be read are not said to have been.
    assert len(set(report.problems)) == report.count == told.count("\n") + 1
    assert report.rows == report.labelled == ROWS - 2 * ROWS // SHARDS
    assert f"data/{first.name}: is missing" in told
    assert f"data/{second.name}: has " in told
    assert "rejected/sample.parquet" in told


def test_columns_of_a_newer_minor_version_are_noted_and_the_known_ones_checked(copy: Path) -> None:
    content = manifest.load(copy) or {}
    content["schema_version"] = "1.99"
    for path in [*copy.glob("data/*.parquet"), *copy.glob("rejected/*.parquet")]:
        table = pq.read_table(path)
        metadata = (table.schema.metadata or {}) | {b"figa.schema_version": b"1.99"}
        wider = table.append_column("novelty", pa.nulls(table.num_rows, pa.int8()))
        pq.write_table(wider.replace_schema_metadata(metadata), path)
    manifest.write(copy, content)
    refit(copy)
    report = verify(copy)
    assert [str(problem) for problem in report.problems] == []
    assert "1.99 is newer" in report.notes[0]
    CORRUPTIONS["weight"][0](copy, random.Random(3), True)
    assert [problem.column for problem in verify(copy).problems] == ["revised_weights"]


def test_rejects_that_the_funnel_does_not_count_are_told(copy: Path) -> None:
    content = manifest.load(copy) or {}
    content["funnel"][1]["rejected"] = {"refused": content["rows"]["rejected"]}
    manifest.write(copy, content)
    told = [problem.what for problem in verify(copy).problems]
    assert any("rejected for refused, the ledger has 0" in line for line in told)
    refit(copy)
    assert told == [problem.what for problem in verify(copy).problems]


def test_a_run_is_as_its_manifest_says_without_its_work_folder(settings: Callable[..., CurationConfig]) -> None:
    config = settings(policy__system="Answer in one line.", labels__granularity="word")
    outcome = curate(config, in_threads, Silent())
    shutil.rmtree(outcome.out / "work")
    report = verify(outcome.out)
    assert [str(problem) for problem in report.problems] == []
    assert report.labelled == outcome.manifest["rows"]["published"] > 0
    # Trained on what the policy was asked with.
    assert outcome.manifest["labels"]["system"] == "Answer in one line."
    tokenizer = outcome.context.tokenizer  # type: ignore[union-attr]
    prompt = open_dataset(outcome.out).to_table(["prompt_input_ids"])["prompt_input_ids"][0].as_py()
    assert tokenizer.decode(prompt).startswith("<|im_start|>system\nAnswer in one line.<|im_end|>\n")
