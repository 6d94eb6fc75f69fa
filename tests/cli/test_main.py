"""The command line as a whole: every command's help, the nearest right name, settings, check."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import __version__
from pipeline.cli.main import COMMANDS, main, parser_of
from pipeline.config.loading import load_config
from pipeline.config.settings import CurationConfig
from tests.conftest import ROOT, child_environment
from tests.loopback import LoopbackServer, behaviours


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_says_what_it_does_with_an_example_and_exit_codes(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    printed = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"\n  figa {name} " in printed and "exit codes: 0 " in printed and "--json" in printed
    assert (parser_of(name).description or "").strip()


def test_there_is_a_file_per_command() -> None:
    files = {path.stem for path in (ROOT / "pipeline" / "cli").glob("*.py") if "def run(" in path.read_text("utf-8")}
    assert files == set(COMMANDS)


def test_figa_alone_prints_help_and_a_bare_build_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == 0
    assert all(f"\n  {name} " in capsys.readouterr().out for name in COMMANDS[:1])
    assert main(["build"]) == 2
    assert "--source NAME" in capsys.readouterr().err
    assert main(["build", "--limit", "3"]) == 2
    assert "no source" in capsys.readouterr().err
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"figa-pipeline {__version__}\n"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["verfy", "x"], "did you mean verify?"),
        (["build", "--limt", "3"], "did you mean --limit?"),
        (["build", "--source", "hhrlhf"], "did you mean hh-rlhf?"),
        (["build", "--source", "hh-rlhf", "--set", "reviser.max_token=3"], "did you mean reviser.max_tokens?"),
        (["build", "--source", "hh-rlhf", "--set", "policy.model=opnai/x"], "did you mean openai?"),
        (["status", "x", "--sett", "a=b"], ""),
    ],
)
def test_a_wrong_name_gets_the_nearest_right_one(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main(words)
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert hint in (printed := capsys.readouterr().err) and "Traceback" not in printed


def test_the_two_doors_are_the_same_command() -> None:
    texts = [
        subprocess.run(
            [sys.executable, "-m", *module, "--help"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
            env=child_environment(),
        ).stdout
        for module in (["pipeline.build"], ["pipeline", "build"])
    ]
    assert texts[0] == texts[1] and texts[0].startswith("usage: figa build")


def test_an_error_is_an_object_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["build", "--source", "demo", "--set", "bogus.key=1"], ["verify", str(tmp_path)]):
        code = main([*command, "--json"])
        said = capsys.readouterr()
        told = json.loads(said.out)
        assert told["exit_code"] == code == 2 and said.err == f"error: {told['error']}\n"


def test_help_without_anybody_who_reads_it_is_no_traceback() -> None:
    figa = f"{sys.executable} -m pipeline"
    for command in (f"{figa} --help >&-", f"{figa} --version >/dev/full", f"{figa} settings >&-"):
        done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr and done.returncode == ("full" in command), done.stderr


def test_settings_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    dumped = load_config().model_dump(mode="json")
    assert listed.keys() == {f"{section}.{name}" for section, values in dumped.items() for name in values}
    for name, one in listed.items():
        section, key = name.split(".")
        assert json.loads(one["default"]) == dumped[section][key], name
        assert one["description"] and one["type"]
    assert listed["policy.concurrency"]["operational"] and not listed["policy.seed"]["operational"]
    assert main(["settings", "reviser"]) == 0
    assert "reviser.max_tokens  (integer, default 512)\n" in capsys.readouterr().out
    assert main(["settings", "--json-schema"]) == 0
    assert json.loads(capsys.readouterr().out) == CurationConfig.model_json_schema()
    assert main(["settings", "nothing"]) == 2


def test_check_says_what_is_in_order(
    rows_file: Path,
    tiny_tokenizer: Path,
    tmp_path: Path,
    loopback: Callable[..., LoopbackServer],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = loopback(behaviours.pipeline)
    monkeypatch.setenv("OPENAI_BASE_URL", server.openai_url)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    words = ["check", "--source", "hh-rlhf", "--input", str(rows_file), "--set", f"labels.tokenizer={tiny_tokenizer}"]
    models = ["policy.model=openai/policy", "reviser.model=openai/reviser"]
    assert main([*words, "--set", *models]) == 2
    assert "set OPENAI_API_KEY" in capsys.readouterr().err
    monkeypatch.setenv("OPENAI_API_KEY", server.key)
    words += ["--out", str(tmp_path / "out")]
    assert main([*words, "--set", *models, "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)["checked"]
    assert {"settings", "source", "first row", "tokenizer", "prompts", "policy", "reviser", "reward"} == checked.keys()
    assert main([*words, "--set", *models, "--set", "labels.tokenizer=/nowhere"]) == 2
    assert "no such folder" in capsys.readouterr().err
