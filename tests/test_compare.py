"""Two data sets side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import open_dataset
from pipeline.cli.main import main
from tests import pairs
from tests.report import hostile


def test_what_differs_between_two_data_sets(
    tiny_tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = pairs.data_set(tmp_path / "first", tiny_tokenizer, 40)
    second = pairs.data_set(tmp_path / "second", tiny_tokenizer, 30, alpha=2.0)
    assert main(["compare", str(first), str(second), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    ids = [set(open_dataset(out).to_table(["id"])["id"].to_pylist()) for out in (first, second)]
    assert found["shared"] == 30 and found["changed"] == 0
    assert found["gained"] == [] and set(found["lost"]) == ids[0] - ids[1]
    assert ["labels.alpha", "1.0", "2.0"] in found["settings"]
    assert ["label", "40", "30"] in found["funnel"] and ["sample: truncated", "-1", "-1"] in found["funnel"]
    page = tmp_path / "page.html"
    assert main(["compare", str(first), str(second), "--html", str(page)]) == 0
    told = capsys.readouterr().out
    assert "30 rows in both, 0 of them" in told and "labels.alpha" in told
    assert "<script" not in page.read_text("utf-8") and "labels.alpha" in page.read_text("utf-8")
    assert main(["compare", str(first), str(second), "--html", str(page)]) == 0
    page.write_text("a,b\n", "utf-8")
    for path, words in ((page, "is no page"), (first / "report.html", "lies in the data set")):
        assert main(["compare", str(first), str(second), "--html", str(path)]) == 2
        assert words in capsys.readouterr().err
    assert page.read_text("utf-8") == "a,b\n"


def test_changed_answers_are_shown_and_hostile_ones_inert(
    tiny_tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = hostile.data_set(tmp_path / "first", tiny_tokenizer)
    second = hostile.data_set(
        tmp_path / "second", tiny_tokenizer, revised="changed \x1b[31m<script>window.ran = 1</script>"
    )
    page = tmp_path / "page.html"
    assert main(["compare", str(first), str(second), "--html", str(page)]) == 0
    told = capsys.readouterr().out
    rows = len(hostile.TEXTS)
    assert f"{rows} rows in both, {rows} of them with other answers" in told
    assert "\x1b" not in told and "<001b>[31m" in told
    text = page.read_text("utf-8")
    assert "<script" not in text and "\x1b" not in text and "&lt;script&gt;window.ran" in text


def test_no_data_set_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(tmp_path), str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
