"""A file of settings runs no code unless the user says so; what is typed is the user's own word."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.cli.main import main, parser_of

PLUGIN = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n\ndef check(messages, reference): ...\n"


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that leaves a file beside it when it is imported; returns that file's path."""
    (tmp_path / "code_of_theirs.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "code_of_theirs", raising=False)
    return tmp_path / "code_of_theirs.ran"


def test_only_the_command_line_runs_code(plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "theirs.yaml"
    file.write_text("source:\n  plugins: [code_of_theirs:check]\n")
    build = ["build", "--source", "demo", "--limit", "3", "--prefect", "off", "--out", str(tmp_path / "out")]
    for words in (build, ["status", str(tmp_path)]):
        assert main([*words, "--config", str(file)]) == 2
        error = capsys.readouterr().err
        assert "source.plugins runs code as you" in error and "--allow-plugins" in error and error.count("\n") == 1
        assert not plugin.exists()
    assert main([*build, "--config", str(file), "--allow-plugins"]) == 0
    assert plugin.exists()
    plugin.unlink()
    sys.modules.pop("code_of_theirs")
    assert main([*build, "--set", "source.plugins=code_of_theirs:check", "--limit", "2"]) == 0
    assert plugin.exists()


def test_code_of_a_models_author_is_such_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "theirs.yaml"
    file.write_text("reward: {model: hf/x/y, trust_remote_code: true}\n")
    assert main(["build", "--source", "demo", "--dry-run", "--config", str(file)]) == 2
    assert "reward.trust_remote_code runs code as you" in capsys.readouterr().err


def test_a_folder_that_names_a_plugin_runs_nothing(
    plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "out" / "work"
    work.mkdir(parents=True)
    settings = '{"source": {"name": "jsonl", "plugins": ["code_of_theirs:check"]}}'
    (work / "run.json").write_text(f'{{"schema_version": "1.0", "settings": {settings}}}')
    assert main(["status", str(tmp_path / "out")]) == 0
    assert not plugin.exists()


@pytest.mark.parametrize("command", ["build", "check", "status"])
def test_the_help_says_so(command: str) -> None:
    assert "run the code that a file of settings names" in " ".join(parser_of(command).format_help().split())
