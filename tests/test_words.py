"""Comments and docstrings use the field's plain words."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Each has a plain word in its place: warnings, printed, pre-made pairs, again, require.
BANNED = re.compile(r"\b(told|brought|anew|insists?)\b", re.IGNORECASE)
FILES = sorted([*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "flows").rglob("*.py")])


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers and texts of a file's comments and docstrings."""
    text = path.read_text("utf-8")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            if docstring:
                yield getattr(node, "lineno", 1), docstring


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_comments_and_docstrings_use_plain_words(path: Path) -> None:
    found = {f"line {line}: {word}" for line, text in prose(path) for word in BANNED.findall(text)}
    assert not found


def test_names_use_plain_words() -> None:
    for path in FILES:
        names = {
            name
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            for name in (getattr(node, "id", None), getattr(node, "name", None), getattr(node, "arg", None))
            if isinstance(name, str)
        }
        assert not {
            name for name in names if set(name.strip("_").split("_")) & {"told", "brought", "anew", "insist"}
        }, path
