"""The pages say what is so: generated ones are current, every reject reason is explained, README is short, the site builds."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import schema
from pipeline.cli.main import COMMANDS
from pipeline.config.loading import listed_settings
from pipeline.config.settings import CurationConfig
from pipeline.sources.adapters import ADAPTERS
from tests.conftest import ROOT, child_environment
from tests.docs.generated import PAGES

DOCS = ROOT / "docs"
# Where a reason is the first argument, or the second.
_MAKERS = {"RowReject": 0, "UselessAnswer": 0, "Transient": 0, "cut_off": 0, "Reject": 1}
# Written by a table or from parts, so that no call holds them as text.
COMPOSED = (
    "query_too_short query_too_long reference_too_short reference_too_long empty_initial empty_revised initial_good_enough "
    "reference_not_good reference_hardly_better meta_talk refusal content_filter plugin reasoning_used_all_tokens rate_limited "
    "batch_expired batch_cancelled batch_canceled batch_item_failed html_answer blocked bad_request"
).split()


def reasons_in_code() -> Iterator[str]:
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _MAKERS:
                place = _MAKERS[node.func.id]
                if len(node.args) > place and isinstance(first := node.args[place], ast.Constant):
                    yield str(first.value)


def test_every_reject_reason_is_explained_and_no_other() -> None:
    cells = re.findall(r"^\| (`[^|]*`) \|", (DOCS / "reasons.md").read_text("utf-8"), re.MULTILINE)
    explained = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert len(explained) == len(set(explained))
    code = "".join(path.read_text("utf-8") for path in (ROOT / "pipeline").rglob("*.py"))
    for name in COMPOSED:
        stem = re.sub(r"^(query|reference)_(too_)|^empty_|^batch_", "", name)
        assert stem in code, name
    assert set(explained) == {*reasons_in_code(), *COMPOSED}


def test_settings_named_in_pages_exist() -> None:
    known = {one["name"] for one in listed_settings()}
    sections = "|".join(CurationConfig.model_fields)
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md")]:
        named = set(re.findall(rf"(?<![\w./-])((?:{sections})\.[a-z_0-9]+)(?![\w(.])", path.read_text("utf-8")))
        missing = {name for name in named - known if not name.startswith(("source.resolved", "source.fields"))}
        assert not {name for name in missing if not name.endswith((".md", ".json", ".py"))}, path


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_generated_pages_are_current(path: Path) -> None:
    assert path.read_text("utf-8") == PAGES[path](), "run python -m tests.docs"


def test_readme_is_short_and_names_every_command() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.split()) <= 900
    assert all(f"| `figa {name} " in text for name in COMMANDS)
    for extra in ("'.[local]' && .venv/bin/python -m pipeline.build --source hh-rlhf", "python3 -m venv .venv-test"):
        assert extra in text


def test_every_column_is_described() -> None:
    text = (DOCS / "formats.md").read_text("utf-8")
    assert all(f"`{name}`" in text for name in schema.PUBLISHED.names)


def test_every_source_is_listed() -> None:
    text = (DOCS / "recipes.md").read_text("utf-8")
    for adapter in ADAPTERS.values():
        (line,) = [
            line for line in text.splitlines() if line.startswith("| `") and f"`{adapter.name}`" in line.split("|")[1]
        ]
        assert adapter.hub_id is None or f"`{adapter.hub_id}`" in line


def test_links_lead_somewhere() -> None:
    for path in [*ROOT.glob("*.md"), *DOCS.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_pictures_are_small() -> None:
    assert all(path.stat().st_size < 300_000 for path in DOCS.glob("*.png"))


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="needs mkdocs-material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=child_environment(NO_MKDOCS_2_WARNING="1")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "reasons" / "index.html").exists()
