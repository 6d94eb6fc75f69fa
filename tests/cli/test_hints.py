"""Commands that messages and helps name exist as they are printed, and do what the message says."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli.main import COMMANDS, main, parser_of
from pipeline.dataset import facts
from pipeline.rewards import diagnostics
from tests import pairs
from tests.conftest import ROOT

_NAMED = re.compile(r"\bfiga ([a-z]+)((?: +(?:--?[a-z][\w-]*|[^\s`;,()]+))*)")
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def texts() -> Iterator[tuple[str, str]]:
    """Every text in the code, those of f-strings with a word in place of what is filled in."""
    for path in sorted([*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "flows").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
                yield path.name, "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield path.name, node.value


def test_every_command_that_a_text_names_has_its_flags() -> None:
    seen = set()
    for file, text in texts():
        for line in text.splitlines():
            for name, rest in _NAMED.findall(line):
                if name in ("pairs",):
                    continue
                assert name in COMMANDS, (file, line)
                known = parser_of(name)._option_string_actions
                assert set(_FLAG.findall(rest)) <= known.keys(), (file, line)
                seen.add(name)
    assert len(seen) > 10


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_parse(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    monkeypatch.chdir(tmp_path)
    for example in importlib.import_module(f"pipeline.cli.{name}").EXAMPLES:
        line = example.split("   ")[0].partition(" > ")[0]
        words = shlex.split(line)
        assert words[:2] == ["figa", name]
        for word in words[2:]:
            if word.startswith("out/"):
                Path(word).mkdir(parents=True, exist_ok=True)
        parser_of(name).parse_args(words[2:])


def test_the_examples_of_show_find_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.cli import show

    monkeypatch.chdir(tmp_path)
    assert main(["build", "--source", "demo", "--prefect", "off"]) == 0
    for example in show.EXAMPLES:
        words = shlex.split(example)
        if "out/demo" in words:
            assert main([*words[1:], "--json"]) == 0


@pytest.mark.parametrize("named", ["whole", "."])
def test_the_way_out_of_a_merge_works(
    named: str,
    tiny_tokenizer: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = pairs.data_set(tmp_path / "one", tiny_tokenizer, 6)
    other = pairs.data_set(tmp_path / "the other", tiny_tokenizer, 6, seed=1, granularity="word", alpha=2.0)
    monkeypatch.chdir(other)
    second = str(other) if named == "whole" else named
    assert main(["merge", str(one), second, "--out", str(tmp_path / "both")]) == 2
    error = capsys.readouterr().err
    command = error.partition("merge that: ")[2].strip()
    assert main(shlex.split(command)[1:]) == 0, command
    assert main(["merge", str(one), f"{other}-relabelled", "--out", str(tmp_path / "both")]) == 0


def test_pairs_that_cannot_be_used_as_asked_name_a_way_that_works(
    tiny_tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, out = tmp_path / "rows.csv", tmp_path / "out"
    rows.write_text("Prompt,Before,After\nSay it.,It is so.,It is thus.\n", "utf-8")
    pairs = ["build", "--source", "jsonl", "--input", str(rows), "--out", str(out), "--prefect", "off"]
    pairs += ["--set", f"labels.tokenizer={tiny_tokenizer}", "source.enters_at=filter"]
    assert main(pairs) == 2
    named = capsys.readouterr().err.partition("name their fields: ")[2].partition(";")[0]
    for name in ("Prompt", "Before", "After"):
        named = named.replace("NAME", name, 1)
    assert main([*pairs, *shlex.split(named)]) == 0
    assert main(["calibrate", str(out)]) == 2
    scored = capsys.readouterr().err.rpartition(" with ")[2]
    assert main([*pairs, *shlex.split(named), *shlex.split(scored)]) == 0
    assert main(["calibrate", str(out)]) == 0


def test_the_warning_of_a_poor_reward_names_a_command_that_works(capsys: pytest.CaptureFixture[str]) -> None:
    measured = {"rows": 50, "prefers_reference": 0.5, "length_correlation": None}
    (line,) = diagnostics.warnings({"reward_check": measured, "models": {"reward": {"name": "local/reward-head"}}})
    command = line.partition("Check it: ")[2].partition(" (")[0]
    assert main(shlex.split(command)[1:]) == 0
    assert "112 scored of 112" in capsys.readouterr().out


def test_a_sentence_with_a_colon_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.config.loading import load_config

    for sentence in ("You are kind. Rules: be short.", "Rules: be short: always.", "- be short"):
        assert load_config(None, [f"policy.system={sentence}"]).policy.system == sentence
    assert load_config(None, ["source.fields={prompt: q}"]).source.fields == {"prompt": "q"}
    assert main(["build", "--source", "demo", "--set", "source.fields={prompt: q"]) == 2
    assert "the value is not YAML" in capsys.readouterr().err


def test_queries_and_answers_are_counted_apart() -> None:
    from pipeline.dataset import facts

    source = {"stage": "source", "in": 52, "out": 48, "rejected": {"duplicate_query": 4}}
    manifest = {"rows": {"read": 52, "published": 10, "rejected": 42}, "funnel": [source]}
    assert facts.headline(manifest) == "52 read = 10 published + 42 rejected"
    manifest["settings"] = {"policy": {"samples": 4}}
    assert facts.headline(manifest) == "16 queries, 4 answers each: 52 rows = 10 published + 42 rejected"


def test_many_answers_that_were_too_long_are_told_with_the_setting() -> None:
    steps = [("sample", 100, {"truncated": 20}), ("revise", 50, {"revision_truncated": 9, "no_correction": 30})]
    funnel = [{"stage": stage, "in": number, "rejected": rejected} for stage, number, rejected in steps]
    settings = {role: {"max_tokens": 192} for role in ("policy", "reviser")}
    told = facts.warnings({"rows": {"published": 1}, "funnel": funnel, "settings": settings})
    assert told == ["20% of the answers were longer than policy.max_tokens=192 and rejected: raise it"]
