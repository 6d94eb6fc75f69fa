"""The direction of imports, and that the light parts stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, child_environment

HEAVY = ("torch", "prefect", "transformers", "datasets", "pandas", "openai", "anthropic", "pyarrow")


def imported(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    tree = ast.parse(path.read_text("utf-8"))
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def test_pipeline_knows_nothing_of_prefect_or_flows() -> None:
    for path in (ROOT / "pipeline").rglob("*.py"):
        if path.name == "build.py":
            continue
        assert not {name.split(".")[0] for name in imported(path)} & {"prefect", "flows"}, path


def test_labels_are_pure() -> None:
    for path in (ROOT / "pipeline" / "labels").glob("*.py"):
        inner = {name for name in imported(path) if name.startswith("pipeline")}
        allowed = ("pipeline.labels", "pipeline.config.settings", "pipeline.errors")
        assert all(name.startswith(allowed) for name in inner), (path, inner)


def test_torch_is_imported_late() -> None:
    for path in (ROOT / "pipeline").rglob("*.py"):
        if "training" not in path.parts:
            assert "torch" not in {name.split(".")[0] for name in imported(path, top_level_only=True)}, path


@pytest.mark.parametrize(
    "statement", ["import pipeline", "import pipeline.cli.build; pipeline.cli.build.parser().format_help()"]
)
def test_importing_stays_light(statement: str) -> None:
    code = f"import sys; {statement}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=child_environment(), check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_command_prints_whatever_the_locale() -> None:
    environment = child_environment(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii")
    command = [sys.executable, "-m", "pipeline", "build", "--help"]  # which isn't ASCII
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "") and "exit codes: 0 done ? 1 failed" in done.stdout
    for path in (ROOT / "pipeline").rglob("*.py"):
        text = path.read_text("utf-8")
        if "def main(argv: Sequence[str] | None = None) -> int:" in text:
            assert "    take_any_text()\n" in text, path
