"""Merge: two data sets as one that verifies, every row accounted for, and what doesn't go together refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipeline
from pipeline import schema
from pipeline.cli.main import main
from pipeline.dataset import manifest
from pipeline.dataset.verify import verify
from pipeline.run.status import folder_state
from pipeline.storage.lock import run_lock
from tests import pairs

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Make:
    """Makes a data set of pairs `first` to `end`; those of the same number have the same id, whatever their seed."""
    root = tmp_path_factory.mktemp("given")

    def make(name: str, first: int, end: int, *, seed: int = 0, **labels: Any) -> Path:
        if not (root / name).exists():
            rows = [
                row
                | {"id": pairs.row_id("synthetic", "train", messages, 0), "messages": messages, "source_row": number}
                for number, row in zip(range(first, end), pairs.pairs(end - first, seed), strict=True)
                for messages in [[{"role": "user", "content": f"question {number}?"}]]
            ]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(pairs, "pairs", lambda *_: rows)
                pairs.data_set(root / name, tiny_tokenizer, end - first, rows_per_file=20, **labels)
        return root / name

    return make


@pytest.fixture
def two(made: Make) -> tuple[Path, Path]:
    """0 to 49, and with other texts 40 to 69."""
    return made("a", 0, 50), made("b", 40, 70, seed=1)


def merged(*roots: Path, out: Path, flags: tuple[str, ...] = ()) -> dict[str, Any]:
    assert main(["merge", *map(str, roots), "--out", str(out), *flags]) == 0
    assert [str(problem) for problem in verify(out).problems] == []
    content = manifest.load(out)
    assert content is not None
    return content


def table(out: Path) -> pa.Table:
    return pipeline.open_dataset(out).to_table()


def rejects(out: Path) -> list[dict[str, Any]]:
    files = (manifest.load(out) or {})["rejected_files"]
    return [row for entry in files for row in pq.read_table(out / entry["path"]).to_pylist()]


def test_every_row_of_both_is_published_or_rejected(two: tuple[Path, Path], tmp_path: Path) -> None:
    content = merged(*two, out=tmp_path / "out")
    own = [table(root) for root in two]
    # 10 are in both: those of the first are published. Each data set brought a reject for each of its files.
    assert content["rows"] == {"read": 50 + 3 + 30 + 2, "published": 70, "rejected": 5 + 10}
    assert table(tmp_path / "out").equals(pa.concat_tables([own[0], own[1].slice(10)]))
    steps = {step["stage"]: step["rejected"] for step in content["funnel"] if step["rejected"]}
    assert steps == {"sample": {"truncated": 5}, "merge": {"duplicate_id": 10}}
    gone = [row for row in rejects(tmp_path / "out") if row["stage"] == "merge"]
    assert [row["id"] for row in gone] == own[1]["id"].to_pylist()[:10]
    assert [row["revised"] for row in gone] == own[1]["revised"].to_pylist()[:10]
    a, b = ({"data_set": str(root), "manifest": (manifest.load(root) or {})["digest"]} for root in two)
    assert all(json.loads(row["evidence"]) == {"published": a, "rejected": b} for row in gone)
    kept = [row for row in rejects(tmp_path / "out") if row["stage"] != "merge"]
    assert kept == [row for root in two for row in rejects(root)]


def test_the_manifest_says_where_it_comes_from(two: tuple[Path, Path], tmp_path: Path) -> None:
    content = merged(*two, out=tmp_path / "out")
    (step,) = content["lineage"]
    parents = [manifest.load(root) or {} for root in two]
    assert [(p["path"], p["manifest"], p["published"], p["rows"]) for p in step["merged"]] == [
        (str(root), parent["digest"], published, parent["rows"])
        for root, parent, published in zip(two, parents, (50, 20), strict=True)
    ]
    assert content["labels"] == parents[0]["labels"] and content["source"] == parents[0]["source"]
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert all(parent["digest"] in card for parent in parents)


def test_the_last_one_is_kept_when_asked(two: tuple[Path, Path], tmp_path: Path) -> None:
    merged(*two, out=tmp_path / "out", flags=("--keep", "last"))
    own = [table(root) for root in two]
    assert table(tmp_path / "out").equals(pa.concat_tables([own[0].slice(0, 40), own[1]]))
    gone = [row for row in rejects(tmp_path / "out") if row["stage"] == "merge"]
    assert [row["revised"] for row in gone] == own[0]["revised"].to_pylist()[40:]
    assert json.loads(gone[0]["evidence"])["published"]["data_set"] == str(two[1])


def test_a_third_is_added_as_a_new_publication(two: tuple[Path, Path], made: Make, tmp_path: Path) -> None:
    out, third = tmp_path / "out", made("c", 60, 100, seed=2)
    first = merged(*two, out=out)
    reader = pipeline.open_dataset(out)
    rows = table(out)
    second = merged(out, third, out=out)
    assert (first["publication"], second["publication"]) == (1, 2)
    assert second["rows"] == {"read": 85 + 42, "published": 100, "rejected": 15 + 12}
    # Who has opened the first publication reads it to the end.
    assert reader.to_table().equals(rows) and len(list(reader.iter_batches(8))) == 9
    # As if all had been merged at once, in the data and in what the manifest says of it.
    whole = merged(*two, third, out=tmp_path / "whole")
    # The card tells the digest.
    own = {"publication", "digest", "files", "rejected_files", "documents"}
    assert {k: v for k, v in second.items() if k not in own} == {k: v for k, v in whole.items() if k not in own}
    for key in ("files", "rejected_files"):
        assert [entry["sha256"] for entry in second[key]] == [entry["sha256"] for entry in whole[key]]


def test_what_is_merged_already_adds_nothing(
    two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    first = merged(*two, out=out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if "work" not in path.parts}
    assert merged(*two, out=out) == first
    capsys.readouterr()
    assert merged(out, two[1], out=out) == first
    assert "is merged already" in capsys.readouterr().err
    assert merged(two[0], *two, out=out) == first
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_newer_publication_of_the_same_folders_takes_its_place(made: Make, tmp_path: Path) -> None:
    a, b, out = tmp_path / "a", made("b", 40, 70, seed=1), tmp_path / "out"
    shutil.copytree(made("a", 0, 50), a)
    merged(a, b, out=out)
    reader = pipeline.open_dataset(out)
    shutil.rmtree(a)
    shutil.copytree(made("longer", 0, 60, seed=3), a)
    content = merged(a, b, out=out)
    assert (content["publication"], content["rows"]["published"]) == (2, 70)
    assert len(reader) == reader.to_table().num_rows == 70
    assert table(out)["revised"].to_pylist()[:60] == table(a)["revised"].to_pylist()


def test_the_commands_work_on_it(two: tuple[Path, Path], made: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    merged(*two, out=out)
    assert (out / "report.html").exists()
    assert main(["show", str(out), "--rejected", "--where", "stage='merge'"]) == 0
    assert main(["export", str(out), "--format", "dpo", "--out", str(tmp_path / "dpo")]) == 0
    found = folder_state(out)
    assert (found.rerun, found.problems, found.published) == ([], [], (manifest.load(out) or {})["rows"])
    assert main(["relabel", str(out), "--granularity", "word", "--out", str(tmp_path / "words")]) == 0
    assert verify(tmp_path / "words").count == 0
    # A merge of merges, and of data sets with nothing in them.
    deeper = merged(out, made("empty", 0, 0), made("c", 60, 100, seed=2), out=tmp_path / "deeper")
    assert deeper["rows"]["published"] == 100
    assert deeper["lineage"][-1]["merged"][0]["lineage"] == (manifest.load(out) or {})["lineage"]


def test_no_row_at_all(tiny_tokenizer: Path, tmp_path: Path) -> None:
    a, b = (pairs.data_set(tmp_path / name, tiny_tokenizer, 0, seed=seed) for seed, name in enumerate("ab"))
    content = merged(a, b, out=tmp_path / "out")
    assert content["rows"]["published"] == 0 and table(tmp_path / "out").schema.equals(schema.PUBLISHED)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({"alpha": 2.0}, "labels.alpha is 1.0 and 2.0"),
        ({"granularity": "word"}, "labels.granularity is token and word"),
        ({"template": "plain"}, "labels.template is chat and plain"),
    ],
)
def test_data_sets_that_are_labelled_differently_are_refused(
    made: Make, tmp_path: Path, labels: dict[str, Any], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = made("-".join(labels), 40, 70, **labels)
    assert main(["merge", str(made("a", 0, 50)), str(other), "--out", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err
    assert told in line and "figa relabel" in line and line.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"schema_version": "1.99"}, "has schema version 1.99"),
        ({"schema_version": "2.0"}, "this program reads 1.x"),
        ({"labels": {"fingerprint": "0" * 64}}, "the tokenizer's fingerprint is"),
        ({"labels": {"libraries": {"rapidfuzz": "0.1"}}}, "the version of rapidfuzz is"),
    ],
)
def test_another_tokenizer_or_schema_is_refused(
    two: tuple[Path, Path], tmp_path: Path, changed: dict[str, Any], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(two[1], tmp_path / "b")
    content = manifest.load(two[1]) or {}
    content["labels"] |= changed.pop("labels", {})
    manifest.write(tmp_path / "b", content | changed)
    assert main(["merge", str(two[0]), str(tmp_path / "b"), "--out", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err
    assert told in line and line.count("\n") == 1 and not (tmp_path / "out").exists()


def test_folders_that_can_not_be_used(
    two: tuple[Path, Path], made: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = two
    out, other = tmp_path / "out", made("c", 60, 100, seed=2)
    merged(a, b, out=out)
    for roots, into, told in [
        ([a, tmp_path], out, "no finished data set is there"),
        ([a, b], b / "out", "lies in the folder of"),
        ([a, b], a, "that no merge wrote"),
        ([a, other], other, "that no merge wrote"),
        ([a, other], out, f"holds a merge of other data sets, {b} among them"),
        ([a, a], tmp_path / "new", "two different data sets"),
    ]:
        assert main(["merge", *map(str, roots), "--out", str(into)]) == 2
        assert told in capsys.readouterr().err.splitlines()[-1]
    assert main(["merge", str(out), str(other), "--keep", "last", "--out", str(out)]) == 2
    assert "was merged with --keep first" in capsys.readouterr().err
    with run_lock(out, print):
        assert main(["merge", str(out), str(other), "--out", str(out)]) == 1
    assert "in use by process" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["data", "rejected"])
def test_a_damaged_data_set_is_named_and_nothing_is_published(
    two: tuple[Path, Path], tmp_path: Path, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(two[1], tmp_path / "b")
    path = next((tmp_path / "b" / folder).glob("*.parquet"))
    raw = path.read_bytes()
    path.write_bytes(raw[:500] + bytes([raw[500] ^ 1]) + raw[501:])
    assert main(["merge", str(two[0]), str(tmp_path / "b"), "--out", str(tmp_path / "out")]) == 1
    assert f"{path}: not as it was published" in capsys.readouterr().err
    assert not (tmp_path / "out" / "manifest.json").exists()
