"""Texts in artifacts: Prefect's pages render Markdown, and rows must be nothing but text there."""

from __future__ import annotations

import re
from pathlib import Path

from markdown_it import MarkdownIt

from flows.artifacts import _as_code, _cost
from pipeline import open_dataset
from pipeline.config.settings import LabelSettings
from pipeline.labels.loading import open_tokenizer
from pipeline.report.diffs import sample_diffs
from tests.report import hostile


def test_hostile_rows_are_code_and_nothing_else(tiny_tokenizer: Path, tmp_path: Path) -> None:
    out = hostile.data_set(tmp_path / "out", tiny_tokenizer)
    tokenizer = open_tokenizer(str(tiny_tokenizer), LabelSettings(tokenizer=str(tiny_tokenizer)))
    diffs = [diff.plain for diff in sample_diffs(out, open_dataset(out).manifest, tokenizer, len(hostile.TEXTS))]
    assert len(diffs) == len(hostile.TEXTS)
    markdown = _as_code(diffs)
    (block,) = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(markdown)
    assert block.type == "code_block"
    assert "<script>window.ran" in block.content and "](javascript:" in block.content and "<202e>evil" in block.content
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", markdown)


def test_names_of_models_are_text() -> None:
    told = _cost({"unpriced": ["openai/[x](javascript:1)<b>@http://h/v1"]})
    assert "](" not in told and "<b" not in told
