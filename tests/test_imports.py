"""The direction of imports, and that the light parts stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT, child_environment

# The rooms from the lowest to the highest: each imports from itself and those below it.
RANKS = (
    ("errors", "schema", "text", "resources"),
    ("storage",),
    ("config",),
    ("prompts",),
    ("sources", "models"),
    ("labels",),
    ("rewards",),
    ("dataset",),
    ("stages", "exports"),
    ("report",),
    ("training",),
    ("run",),
    ("curate",),
    ("cli",),
    ("build", "__main__", "flows"),
)
HEAVY = ("torch", "prefect", "transformers", "datasets", "pandas", "openai", "anthropic", "pyarrow")


def imported(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    tree = ast.parse(path.read_text("utf-8"))
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def modules() -> dict[str, Path]:
    """Every module of the project by its dotted name; a package's name is that of its `__init__`."""
    paths = [path for room in ("pipeline", "flows") for path in (ROOT / room).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports(path: Path, known: Collection[str]) -> set[str]:
    """The project's modules that a file imports, lazy and type-only imports included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            # A name that is no module is something in one.
            module = name if name in known else name.rpartition(".")[0]
            found |= {module} & set(known) - {"pipeline"}
    return found


def rank(module: str) -> int:
    parts = module.split(".")
    room = parts[0] if parts[0] == "flows" else ".".join(parts[:2]).removeprefix("pipeline.")
    return next(number for number, rooms in enumerate(RANKS) if room in rooms)


def test_imports_point_one_way() -> None:
    known = modules()
    upward = {
        f"{module} imports {other}"
        for module, path in known.items()
        if module != "pipeline"
        for other in imports(path, known)
        if rank(other) >= rank(module) and room_of(other) != room_of(module)
    }
    assert upward <= {"pipeline.cli.build imports flows.curate"}


def room_of(module: str) -> str:
    return ".".join(module.split(".")[: 1 if module.startswith("flows") else 2])


def test_no_import_cycles() -> None:
    known = modules()
    sorter = TopologicalSorter({module: imports(path, known) - {module} for module, path in known.items()})
    sorter.prepare()


def test_alignment_is_pure() -> None:
    assert imports(ROOT / "pipeline" / "labels" / "alignment.py", modules()) <= {"pipeline.config.settings"}


def test_torch_is_imported_late() -> None:
    for path in (ROOT / "pipeline").rglob("*.py"):
        if "training" not in path.parts:
            assert "torch" not in {name.split(".")[0] for name in imported(path, top_level_only=True)}, path


@pytest.mark.parametrize(
    "statement",
    [
        "import pipeline",
        "from pipeline.cli.main import COMMANDS, parser_of; [parser_of(name).format_help() for name in COMMANDS]",
    ],
)
def test_importing_stays_light(statement: str) -> None:
    code = f"import sys; {statement}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=child_environment(), check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("call", "imported"), [("main()", False), ("main(sys.argv[1:])", True)])
def test_a_build_of_its_own_process_needs_no_torch(
    call: str, imported: bool, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    """A caller within another program finds transformers whole."""
    pytest.importorskip("torch")
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "Why?", "chosen": "It is so.", "initial": "It was.", "revised": "It is."}\n')
    out = tmp_path / "out"
    settings = ["--source", "jsonl", "--input", str(pairs), "--set", f"labels.tokenizer={tiny_tokenizer}"]
    code = f"""
import sys
from pipeline.cli.main import main
code = {call}
import transformers
print(code, "torch" in sys.modules, transformers.is_torch_available(), file=sys.stderr)
import torch
"""
    command = [sys.executable, "-c", code, "build", *settings, "--out", str(out), "--prefect", "off"]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == f"0 {imported} {imported}", done.stderr
    command[3:] = ["verify", str(out)]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == f"0 {imported} {imported}", done.stderr


def test_every_command_prints_whatever_the_locale() -> None:
    environment = child_environment(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii")
    command = [sys.executable, "-m", "pipeline", "build", "--help"]  # which isn't ASCII
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "") and "exit codes: 0 done ? 1 failed" in done.stdout


def test_the_house_is_small_enough_to_read() -> None:
    """22 entries in `pipeline/`, no file over 300 lines, no function over 40, docstrings included."""
    assert len([path for path in (ROOT / "pipeline").iterdir() if path.name != "__pycache__"]) <= 22
    for module, path in modules().items():
        text = path.read_text("utf-8")
        assert text.count("\n") <= 300, module
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 40, (module, node.name)
