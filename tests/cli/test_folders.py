"""What is wrong with a folder or a file that a command is given is one line, whatever the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli.main import main
from pipeline.config.settings import CurationConfig
from pipeline.run import shards
from tests.conftest import as_arguments

Settings = Callable[..., CurationConfig]
WITH_DIR = {
    "status": [],
    "verify": [],
    "show": [],
    "report": [],
    "cancel": [],
    "calibrate": [],
    "compare": ["."],
    "merge": [".", "--out", "new"],
    "relabel": ["--out", "new"],
    "export": ["--format", "dpo", "--out", "new"],
    "train": ["--model", "x", "--out", "new"],
    "push": ["owner/name"],
}


@pytest.mark.parametrize("command", WITH_DIR)
def test_a_folder_that_is_not_there(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    for place, why in (
        ("nowhere", "no such folder"),
        ("file", "is not a folder"),
        ("x" * 300, "255 bytes"),
        ("", "expected"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([command, place, *WITH_DIR[command]])
        error = capsys.readouterr().err
        assert ended.value.code == 2
        assert why in error and error.startswith("error: argument ") and error.count("\n") == 2
    assert [path.name for path in Path().iterdir()] == ["file"]


NAMES = """README.md report.html manifest.json data/train-00000-of-00001.parquet work/plan.json work/run.json work/journal.db
work/paid.json work/sample/00000.arrow work/score/00000.json work/run.lock data work"""


@pytest.mark.parametrize("name", NAMES.split())
def test_a_folder_where_a_file_was_or_a_file_where_a_folder_was(
    settings: Settings, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings(source__limit=6)
    (config.out / "work").mkdir(parents=True)
    (config.out / "work" / "run.lock").touch()
    if "/" not in name and "." not in name:
        (config.out / name).mkdir(exist_ok=True)
        (config.out / name).rename(config.out.parent / "aside")
        (config.out / name).touch()
    else:
        (config.out / name).unlink(missing_ok=True)
        (config.out / name / "inner").mkdir(parents=True)
    shards.forget_contexts()
    code = main(["build", *as_arguments(config), "--prefect", "off"])
    error = capsys.readouterr().err
    assert code in (1, 2), error
    assert error.startswith("error: ") and error.count("\n") == 1 and str(config.out) in error
    assert (config.out / name).is_file() if name in ("data", "work") else (config.out / name / "inner").is_dir()
