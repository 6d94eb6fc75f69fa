"""Review: decisions of a person become a data set; nothing is asked of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline import open_dataset
from pipeline.cli.main import main
from pipeline.dataset.verify import verify
from tests import pairs

Row = dict[str, Any]


@pytest.fixture
def data(tiny_tokenizer: Path, tmp_path: Path) -> Path:
    return pairs.data_set(tmp_path / "data", tiny_tokenizer, 20, rows_per_file=8)


def saved(data: Path, file: Path, decisions: dict[str, Any], reviewer: str = "ann") -> Path:
    """The file that the report saves. decisions: a kind by id, or the text of an edit as [text]."""
    listed = [
        {"id": row_id, **({"decision": what} if isinstance(what, str) else {"decision": "edit", "revised": what[0]})}
        for row_id, what in decisions.items()
    ]
    run = open_dataset(data).manifest["run_digest"]
    content = {"format": "figa-review", "run_digest": run, "reviewer": reviewer, "decisions": listed}
    file.write_text(json.dumps(content), "utf-8")
    return file


def test_drops_are_rejects_and_edits_are_filtered_and_labelled_again(data: Path, tmp_path: Path) -> None:
    before = open_dataset(data).to_table().to_pylist()
    ids = [row["id"] for row in before]
    decisions: dict[str, Any] = {ids[0]: "keep", ids[1]: "drop", ids[9]: "drop"}
    decisions |= {ids[2]: [f"{before[2]['initial']} And so it is."], ids[3]: [before[3]["initial"]]}
    file = saved(data, tmp_path / "decisions.json", decisions)
    out = tmp_path / "reviewed"
    assert main(["review", str(data), "--decisions", str(file), "--out", str(out)]) == 0
    assert verify(out).problems == []
    manifest = open_dataset(out).manifest
    assert manifest["rows"] == {"read": 20, "published": 17, "rejected": 3}
    assert [(step["stage"], step["rejected"]) for step in manifest["funnel"]] == [
        ("review", {"reviewed_out": 2}),
        ("filter", {"unchanged": 1}),
        ("label", {}),
    ]
    assert manifest["review"] | {"decisions": "", "reviewers": []} == {
        "decisions": "",
        "reviewers": [],
        "keep": 1,
        "drop": 2,
        "edit": 2,
        "undecided": 15,
    }
    after = open_dataset(out).to_table().to_pylist()
    assert [row["id"] for row in after] == [row_id for row_id in ids if row_id not in (ids[1], ids[3], ids[9])]
    by_id = {row["id"]: row for row in after}
    edited = by_id[ids[2]]
    assert edited["revised"].endswith("And so it is.") and edited["reward_revised"] is None
    assert edited["reviewed_by"] == by_id[ids[0]]["reviewed_by"] == "ann"
    untouched = [row for row in before if row["id"] not in decisions]
    assert all(by_id[row["id"]] == row for row in untouched)
    rejects = pq.read_table(out / "rejected").to_pylist()
    assert {row["id"] for row in rejects} == {ids[1], ids[3], ids[9]}
    assert {json.loads(row["evidence"]).get("reviewed_by") for row in rejects if row["stage"] == "review"} == {"ann"}
    card = (out / "README.md").read_text("utf-8")
    assert "| Reviewed | by ann: 1 keep, 2 drop, 2 edit, 15 undecided" in card


def test_the_same_command_again_changes_nothing(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = open_dataset(data).to_table(["id"]).to_pylist()[0]["id"]
    file = saved(data, tmp_path / "decisions.json", {row: "drop"})
    words = ["review", str(data), "--decisions", str(file), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    first = (tmp_path / "out" / "manifest.json").read_bytes()
    assert main(words) == 0 and (tmp_path / "out" / "manifest.json").read_bytes() == first
    assert main(["status", str(tmp_path / "out")]) == 0
    assert "made by a review" in capsys.readouterr().out
    assert main(["relabel", str(tmp_path / "out"), "--granularity", "word", "--out", str(tmp_path / "again")]) == 0
    assert verify(tmp_path / "again").problems == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"run_digest": "another"}, "another data set"),
        ({"decisions": [{"id": "0" * 16, "decision": "keep"}]}, "no pair of"),
        ({"decisions": [{"id": "x", "decision": "maybe"}]}, "expected keep, drop, or edit"),
        ({"decisions": [{"id": "x", "decision": "edit", "revised": " "}]}, "with a text"),
        ({"decisions": [{"id": "x", "decision": "edit", "revised": 5}]}, "with a text"),
        ({"decisions": [{"id": "x", "decision": "edit", "revised": "\ud800"}]}, "with a text"),
        ({"decisions": [{"id": "x", "decision": "drop"}, {"id": "x", "decision": "keep"}]}, "one decision a pair"),
        ({"reviewer": None}, "its reviewer is None"),
        ({"format": "other"}, "the file that the report saves"),
        ({"decisions": 3}, "the file that the report saves"),
    ],
)
def test_files_that_are_not_of_this_set_are_refused(
    data: Path, tmp_path: Path, change: Row, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    row = open_dataset(data).to_table(["id"]).to_pylist()[0]["id"]
    file = saved(data, tmp_path / "decisions.json", {row: "keep"})
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | change), "utf-8")
    assert main(["review", str(data), "--decisions", str(file), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_two_readers_agree_as_far_as_they_do(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [row["id"] for row in open_dataset(data).to_table(["id"]).to_pylist()]
    ann = saved(data, tmp_path / "ann.json", {row_id: "keep" if n < 6 else "drop" for n, row_id in enumerate(ids[:10])})
    ben = saved(data, tmp_path / "ben.json", {row_id: "keep" if n < 5 else "drop" for n, row_id in enumerate(ids[:10])})
    both = ["--decisions", str(ann), "--decisions", str(ben)]
    assert main(["review", str(data), *both, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    # Of ten, nine alike; by chance 0.6 × 0.5 + 0.4 × 0.5 = 0.5, so that κ is (0.9 − 0.5) / 0.5.
    assert (result["pairs"], result["agreement"], result["kappa"]) == (10, 0.9, 0.8)
    assert result["differ"] == [ids[5]]
    assert main(["review", str(data), *both]) == 0 and "kappa 0.80" in capsys.readouterr().out
    assert main(["review", str(data), *both, "--out", str(tmp_path / "out")]) == 2


def test_label_studio_and_back(data: Path, tmp_path: Path) -> None:
    tasks_folder = tmp_path / "tasks"
    assert main(["review", str(data), "--export", "label-studio", "--out", str(tasks_folder)]) == 0
    tasks = json.loads((tasks_folder / "tasks.json").read_text("utf-8"))
    assert len(tasks) == 20
    # Annotations may lie there by now.
    assert main(["review", str(data), "--export", "label-studio", "--out", str(tasks_folder)]) == 2
    assert main(["review", str(data), "--export", "label-studio", "--out", str(data / "tasks")]) == 2
    answered = [task | {"id": n, "annotations": []} for n, task in enumerate(tasks)]
    for task, kind in zip(answered, ("keep", "drop", "edit"), strict=False):
        result = [
            {"id": "1", "from_name": "decision", "to_name": "revised", "type": "choices", "value": {"choices": [kind]}}
        ]
        if kind == "edit":
            text = {"text": [f"{task['data']['initial']} Indeed it is so."]}
            result.append({"id": "2", "from_name": "edited", "to_name": "revised", "type": "textarea", "value": text})
        task["annotations"] = [
            {"completed_by": {"email": "cleo@example.org"}, "was_cancelled": False, "result": result}
        ]
    file = tmp_path / "export.json"
    file.write_text(json.dumps(answered), "utf-8")
    out = tmp_path / "out"
    assert main(["review", str(data), "--decisions", str(file), "--out", str(out)]) == 0
    review = open_dataset(out).manifest["review"]
    assert (review["keep"], review["drop"], review["edit"], review["undecided"]) == (1, 1, 1, 17)
    assert review["reviewers"] == ["label-studio cleo@example.org"]
    interface = pytest.importorskip("label_studio_sdk.label_interface", reason="needs label-studio-sdk").LabelInterface(
        (tasks_folder / "labels.xml").read_text("utf-8")
    )
    interface.validate()
    assert all(interface.validate_task(task) for task in tasks)
    assert all(interface.validate_annotation(task["annotations"][0]) for task in answered[:3])


def test_a_command_that_says_too_little_or_too_much(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["review", str(data)]) == 2
    assert "name one --decisions and --out" in capsys.readouterr().err
