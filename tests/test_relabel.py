"""Relabel: other labels from stored texts, as a data set of its own, and back again byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema
from pipeline.cli.main import main
from pipeline.dataset import manifest
from pipeline.dataset.verify import verify
from pipeline.labels.columns import LABELS
from tests.labels.families import FAMILIES, fast
from tests.pairs import data_set

ROWS = 60


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    for name, make in FAMILIES.items():
        fast(make()).save_pretrained(root / name)
    return {name: root / name for name in FAMILIES}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory, tokenizers: dict[str, Path]) -> Path:
    return data_set(tmp_path_factory.mktemp("parent") / "set", tokenizers["byte_level"], ROWS, rows_per_file=25)


def relabelled(root: Path, out: Path, *flags: str) -> Path:
    assert main(["relabel", str(root), "--out", str(out), *flags]) == 0
    report = verify(out)
    assert [str(problem) for problem in report.problems] == []
    return out


def table(out: Path) -> pa.Table:
    """All rows, in the order of the files."""
    files = (manifest.load(out) or {})["files"]
    return pa.concat_tables([pq.read_table(out / entry["path"]).replace_schema_metadata() for entry in files])


def rejects(out: Path) -> list[dict[str, Any]]:
    files = (manifest.load(out) or {})["rejected_files"]
    return [row for entry in files for row in pq.read_table(out / entry["path"]).to_pylist()]


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "byte_level"])
def test_there_and_back_gives_the_same_label_columns(
    parent: Path, tokenizers: dict[str, Path], family: str, tmp_path: Path
) -> None:
    there = relabelled(parent, tmp_path / "there", "--tokenizer", str(tokenizers[family]), "--granularity", "word")
    back = relabelled(there, tmp_path / "back", "--tokenizer", str(tokenizers["byte_level"]), "--granularity", "token")
    first, between, last = table(parent), table(there), table(back)
    lost = {row["id"] for row in rejects(there)}
    assert between.num_rows + len(lost) == ROWS
    assert not between["revised_input_ids"].equals(first["revised_input_ids"])
    kept = first.filter(pa.array([name not in lost for name in first["id"].to_pylist()]))
    assert last.equals(kept)
    for name in LABELS:
        old, new = (t[name].combine_chunks() for t in (kept, last))
        # Byte for byte: equality of floats would let −0.0 pass for 0.0.
        if pa.types.is_list(old.type):
            assert old.offsets.to_numpy().tobytes() == new.offsets.to_numpy().tobytes()
            old, new = old.flatten(), new.flatten()
        assert old.to_numpy(zero_copy_only=False).tobytes() == new.to_numpy(zero_copy_only=False).tobytes()


def test_the_new_data_set_is_one_of_its_own_with_its_lineage(
    parent: Path, tokenizers: dict[str, Path], tmp_path: Path
) -> None:
    there = relabelled(parent, tmp_path / "there", "--tokenizer", str(tokenizers["unigram"]))
    again = relabelled(
        there, tmp_path / "again", "--alpha", "2", "--signal", "constant", "--set", "labels.eos_weight=3"
    )
    old, new, newest = (manifest.load(path) or {} for path in (parent, there, again))
    assert [step["manifest"] for step in newest["lineage"]] == [old["digest"], new["digest"]]
    assert newest["lineage"][0]["labels"] == old["labels"]
    assert new["rows"] == {"read": ROWS, "published": ROWS, "rejected": 0}
    assert (newest["labels"]["alpha"], newest["labels"]["beta"]) == (2.0, 0.5)
    assert newest["labels"]["fingerprint"] == new["labels"]["fingerprint"] != old["labels"]["fingerprint"]
    assert newest["settings"]["labels"]["signal"] == "constant"
    assert newest["source"] == old["source"]
    for row in table(again).to_pylist():
        prompt = len(row["prompt_input_ids"])
        assert row["revised_weights"][prompt:] == [2.0] * (len(row["revised_ops"]) - prompt - 1) + [3.0]
    # The parent's rejects stay with it.
    assert old["rejected_files"] and not new["rejected_files"]
    card = (again / "README.md").read_text("utf-8")
    assert "α = 2.0" in card and new["digest"][:12] in card


def test_rows_that_can_not_be_labelled_are_rejects_with_a_reason(parent: Path, tmp_path: Path) -> None:
    out = relabelled(parent, tmp_path / "short", "--set", "labels.max_length=75", "--set", "filter.max_distance=0.2")
    content = manifest.load(out) or {}
    gone = rejects(out)
    assert 0 < len(gone) < ROWS
    assert content["rows"] == {"read": ROWS, "published": ROWS - len(gone), "rejected": len(gone)}
    assert {row["reason"] for row in gone} == {"too_long", "too_different"} == set(content["funnel"][0]["rejected"])
    ids = [row["id"] for row in gone] + table(out)["id"].to_pylist()
    assert sorted(ids) == sorted(table(parent)["id"].to_pylist())
    for row in gone:
        assert (row["stage"], row["initial"] is None, row["revised"] is None) == ("label", False, False)
        assert json.loads(row["evidence"])
        assert (row["reason"] == "too_different") == (row["edit_distance"] is not None)
    distances = table(out)["edit_distance"].to_pylist()
    assert max(distances) <= 0.2 < max(table(parent)["edit_distance"].to_pylist())


def test_a_row_without_an_edit_in_the_new_tokens_is_rejected(tokenizers: dict[str, Path], tmp_path: Path) -> None:
    # WordPiece lower-cases: an edit of case alone is none.
    import tests.pairs as made

    rows = list(made.pairs(3))
    rows[1]["revised"] = rows[1]["initial"].swapcase()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made, "pairs", lambda *_: rows)
        root = data_set(tmp_path / "set", tokenizers["byte_level"], 3)
    out = relabelled(root, tmp_path / "there", "--tokenizer", str(tokenizers["word_piece"]))
    assert [(row["id"], row["reason"]) for row in rejects(out)] == [(rows[1]["id"], "unchanged")]
    everything = relabelled(root, tmp_path / "none", "--set", "labels.max_length=8")
    assert table(everything).num_rows == 0 and len(rejects(everything)) == 3


def test_pairs_that_were_never_scored_have_no_reward_weighted_labels(
    tokenizers: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tests.pairs as made

    rows = list(made.pairs(5))
    rows[0]["revised"] = rows[0]["initial"] + " " + "word " * 90
    for row in rows[1:3]:
        row["reward_revised"] = row["reward_initial"] = None
    monkeypatch.setattr(made, "pairs", lambda *_: rows)
    root = data_set(tmp_path / "set", tokenizers["byte_level"], 5)
    assert verify(root).count == 0
    flags = ("--signal", "reward_weighted", "--set", "labels.max_length=160")
    out = relabelled(root, tmp_path / "there", *flags)
    assert [row["reason"] for row in rejects(out)] == ["too_long", "no_reward_gain", "no_reward_gain"]
    assert [row["id"] for row in rejects(out)] == [row["id"] for row in rows[:3]]


def test_over_long_pairs_are_marked_and_whole_when_asked(parent: Path, tmp_path: Path) -> None:
    flags = ("--set", "labels.max_length=75", "--set", "labels.overlong=mark")
    marked = table(relabelled(parent, tmp_path / "marked", *flags))
    assert marked.drop_columns(["overlong"]).equals(table(parent).drop_columns(["overlong"]))
    longest = [max(len(r["revised_input_ids"]), len(r["initial_input_ids"])) for r in marked.to_pylist()]
    assert marked["overlong"].to_pylist() == [length > 75 for length in longest]
    assert 0 < sum(marked["overlong"].to_pylist()) < ROWS


def test_the_same_again_does_nothing_and_the_bytes_are_the_same(parent: Path, tmp_path: Path) -> None:
    flags = ("--granularity", "phrase", "--set", "labels.max_length=75")
    one, other = (relabelled(parent, tmp_path / name, *flags) for name in ("one", "other"))
    names = [*one.glob("data/*"), *one.glob("rejected/*"), one / "manifest.json", one / "README.md"]
    for path in names:
        assert path.read_bytes() == (other / path.relative_to(one)).read_bytes()
    before = {path: path.stat().st_mtime_ns for path in names}
    relabelled(parent, one, *flags)
    assert before == {path: path.stat().st_mtime_ns for path in names}
    # Other settings take the folder's place: it held nothing but a relabelled data set.
    relabelled(parent, one)
    assert table(one).equals(table(parent)) and not rejects(one)


def test_an_empty_data_set(tokenizers: dict[str, Path], tmp_path: Path) -> None:
    root = data_set(tmp_path / "set", tokenizers["byte_level"], 0)
    out = relabelled(root, tmp_path / "out", "--tokenizer", str(tokenizers["metaspace"]))
    assert table(out).num_rows == 0 and table(out).schema.equals(schema.PUBLISHED)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--set", "reviser.max_tokens=5"], "labels.* only"),
        (["--granularity", "sentence"], "labels.granularity"),
        (["--tokenizer", "./nowhere"], "nowhere"),
        (["--set", "labels.alhpa=1"], "labels.alpha"),
        (["--template", "chat", "--set", "labels.system=[1]"], "labels.system"),
    ],
)
def test_mistakes_are_one_clear_line(
    parent: Path, tmp_path: Path, flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["relabel", str(parent), "--out", str(tmp_path / "out"), *flags]) == 2
    line = capsys.readouterr().err
    assert told in line and line.count("\n") == 1
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_folders_that_can_not_be_used(parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["relabel", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert main(["relabel", str(parent), "--out", str(parent / "out")]) == 2
    other = tmp_path / "other"
    other.mkdir()
    (other / "manifest.json").write_bytes((parent / "manifest.json").read_bytes())
    assert main(["relabel", str(parent), "--out", str(other)]) == 2
    assert "that no relabelling wrote" in capsys.readouterr().err
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("my own", "utf-8")
    assert main(["relabel", str(parent), "--out", str(mine)]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert (mine / "README.md").read_text("utf-8") == "my own"


def test_one_that_was_interrupted_is_done_again_in_its_folder(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.run.publish.finish", interrupted)
        assert main(["relabel", str(parent), "--out", str(out)]) == 130
    assert not (out / "manifest.json").exists()
    assert table(relabelled(parent, out)).equals(table(parent))


def test_a_damaged_parent_is_not_relabelled(tokenizers: dict[str, Path], tmp_path: Path) -> None:
    root = data_set(tmp_path / "set", tokenizers["byte_level"], 20)
    path = next((root / "data").glob("*.parquet"))
    raw = path.read_bytes()
    path.write_bytes(raw[:500] + bytes([raw[500] ^ 1]) + raw[501:])
    assert main(["relabel", str(root), "--out", str(tmp_path / "out")]) == 1
    assert not (tmp_path / "out" / "manifest.json").exists()
