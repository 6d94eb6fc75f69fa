"""Texts in artifacts: Prefect's pages render Markdown, and rows must be nothing but text there."""

from __future__ import annotations

import re
from pathlib import Path

from markdown_it import MarkdownIt

from flows.artifacts import summary
from flows.reporter import overall
from pipeline import open_dataset
from pipeline.config.settings import LabelSettings
from pipeline.labels.loading import open_tokenizer
from pipeline.report.diffs import sample_diffs
from pipeline.run.progress import Counts
from tests.report import hostile


def test_hostile_rows_are_code_and_nothing_else(tiny_tokenizer: Path, tmp_path: Path) -> None:
    out = hostile.data_set(tmp_path / "out", tiny_tokenizer)
    content = open_dataset(out).manifest
    tokenizer = open_tokenizer(str(tiny_tokenizer), LabelSettings(tokenizer=str(tiny_tokenizer)))
    diffs = [diff.plain for diff in sample_diffs(out, content, tokenizer, len(hostile.TEXTS))]
    assert len(diffs) == len(hostile.TEXTS)
    # Names of models are text as well.
    content |= {"unpriced": ["openai/[x](javascript:1)<b>@http://h/v1"]}
    markdown = summary(out, content, diffs)
    blocks = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(markdown)
    (code,) = (block for block in blocks if block.type == "code_block")
    assert blocks[-1] is code
    assert "<script>window.ran" in code.content and "](javascript:" in code.content and "<202e>evil" in code.content
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", markdown)
    kinds = {child.type for block in blocks for child in block.children or ()}
    assert kinds <= {"text", "text_special", "strong_open", "strong_close", "softbreak"}, kinds


def test_progress_counts_rows_that_can_still_arrive() -> None:
    counts = {"source": Counts(10, 2, 10), "sample": Counts(8, 4, 8), "score": Counts(2, 0, 2)}
    percent, text = overall(counts, ("source", "sample", "score", "label"))
    assert percent == 100 * (1 + 1 + 2 / 4 + 0) / 4
    assert text == "source 10/10 (2 rejected) · sample 8/8 (4 rejected) · score 2/2"
    assert overall({"source": Counts(1, 1, 1)}, ("source", "label"))[0] == 100
