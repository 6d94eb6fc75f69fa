"""Pairs in the terminal: the chosen ones, with their marks, and no escape sequence of theirs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from pipeline import open_dataset
from pipeline.cli.main import main
from pipeline.config.settings import LabelSettings
from pipeline.labels.loading import open_tokenizer
from pipeline.text import visible
from tests import pairs
from tests.report import hostile


@pytest.fixture(scope="module")
def out(tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pairs.data_set(tmp_path_factory.mktemp("show") / "out", tiny_tokenizer, 60, rows_per_file=30)


def shown(out: Path, *arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["show", str(out), *arguments]) == 0
    return capsys.readouterr().out


def test_one_row(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = open_dataset(out).to_table().slice(40, 1).to_pylist()[0]
    text = shown(out, "--row", row["id"], capsys=capsys)
    diff = text.split("\n", 3)[3].split("\nreference")[0]
    assert re.sub(r"\{\+|\+\}|\[-.*?-\]", "", diff).strip() == row["revised"].strip()
    assert re.sub(r"\[-|-\]|\{\+.*?\+\}", "", diff).strip() == row["initial"].strip()


def test_rows_by_a_condition(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = open_dataset(out).to_table(["id", "reward_revised", "reward_initial", "edit_distance"]).to_pylist()
    wanted = [r["id"] for r in table if r["reward_revised"] - r["reward_initial"] > 1 and r["edit_distance"] <= 0.2]
    assert 0 < len(wanted) < 60
    condition = "reward_gain>1 and edit_distance<=0.2 and diagnosis = 'inaccuracy'"
    text = shown(out, "--where", condition, "--limit", "0", capsys=capsys)
    assert re.findall(r"^([0-9a-f]{16})  ", text, re.MULTILINE) == wanted
    assert shown(out, "--where", "diagnosis~NOTHING", capsys=capsys) == ""


def test_prompts_and_lists_are_searched(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = open_dataset(out).to_table().to_pylist()
    word = max(rows[0]["messages"][-1]["content"].split(), key=len).strip("?.,!'\"")
    found = {row["id"] for row in rows if any(word.lower() in turn["content"].lower() for turn in row["messages"])}
    for field in ("prompt", "messages"):
        assert main(["show", str(out), "--where", f"{field}~'{word}'", "--limit", "0", "--json"]) == 0
        assert {json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()} == found
    assert main(["show", str(out), "--where", "revised_ops~2", "--limit", "0", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == sum(2 in row["revised_ops"] for row in rows)


def test_rejected_rows_with_their_reason(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(out, "--rejected", "--where", "reason=truncated", capsys=capsys)
    assert text.count("rejected at sample: truncated") == 2


def test_a_damaged_ledger_is_one_line(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(out, tmp_path / "copy")
    for file in (copy / "rejected").iterdir():
        file.write_bytes(b"")
    assert main(["show", str(copy), "--rejected"]) == 1
    error = capsys.readouterr().err
    assert "not as it was published" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("nothing>1", "no field 'nothing'"),
        ("edit_distance>high", "edit_distance is a number"),
        ("edit_distance>1 or id=2", "expected `and`, found 'or id=2'"),
        ("__import__('os')", "expected FIELD OPERATOR VALUE"),
        ("edit_distance>nan", "edit_distance is a number"),
        ("messages=1", "messages is a list: search it by ~"),
    ],
)
def test_a_bad_condition_is_one_clear_line(
    out: Path, condition: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(out), "--where", condition]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and told in error


def test_an_unknown_row_and_no_data_set_are_told(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(out), "--row", "none"]) == 2
    assert "no row has the id 'none'" in capsys.readouterr().err
    assert main(["show", str(tmp_path)]) == 2


def test_no_escape_sequence_of_a_row_reaches_the_terminal(
    tiny_tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = hostile.data_set(tmp_path / "out", tiny_tokenizer)
    text = shown(out, "--limit", "0", capsys=capsys) + shown(out, "--rejected", capsys=capsys)
    own = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert len(own) < len(text), "colours were on"
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\u2028]", own)
    assert "<001b>[31mred" in own and "<202e>evil" in own and "<script>window.ran = 1</script>" in own


@pytest.mark.parametrize(
    ("condition", "rows"),
    [("sample_index<0.5", 60), ("source_row>1e300", 0), ("overlong=false", 60), ("overlong=true", 0)],
)
def test_numbers_and_truths_are_compared_as_they_are(
    out: Path, condition: str, rows: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(out), "--where", condition, "--limit", "0"]) == 0
    assert f"{rows} pairs shown" in capsys.readouterr().err


def test_a_limit_below_zero_is_refused(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["show", str(out), "--limit", "-1"])
    assert ended.value.code == 2 and "expected a number from 0, got '-1'" in capsys.readouterr().err


def test_the_summary_of_a_run_draws_the_same_diff(
    out: Path, tiny_tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.report.diffs import sample_diffs

    manifest = open_dataset(out).manifest
    tokenizer = open_tokenizer(str(tiny_tokenizer), LabelSettings(tokenizer=str(tiny_tokenizer)))
    (drawn,) = sample_diffs(out, manifest, tokenizer, 1)
    assert "<|im_end|>" not in drawn.plain
    row_id = drawn.plain.split(maxsplit=1)[0]
    assert shown(out, "--row", row_id, capsys=capsys).split("\n", 3)[3].startswith(drawn.plain.split("\n", 3)[3])


def test_what_no_terminal_shows_is_shown() -> None:
    assert visible("a\u00a0b\u3164c\ufe0fd\U000e0101\n\t") == "a<00a0>b<3164>c<fe0f>d<e0101>\n<0009>"
