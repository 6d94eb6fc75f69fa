"""Short lines for messages, and paths of this machine."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.text import describe_error, did_you_mean, one_line, redact_paths


@pytest.mark.parametrize(
    ("told", "left"),
    [
        ("/home/ann/rows.jsonl", "rows.jsonl"),
        ("/home/ann/tokenizer/", "tokenizer/"),
        ("/data/a.jsonl.gz, /data/b.jsonl", "a.jsonl.gz, b.jsonl"),
        ("/data/a.jsonl,,owner/name@main", "a.jsonl,,owner/name@main"),
        ("/data/a + /data/b", "a + b"),
        ("hf//models/rm,hf/owner/rm", "hf/rm,hf/owner/rm"),
        ("file:///data/*.jsonl", "file://*.jsonl"),
        (["/data/bench.txt", "bench.txt"], ["bench.txt", "bench.txt"]),
        *((same, same) for same in ("owner/name", "rows/a.jsonl", "s3://bucket/a", "openai/m@http://host/v1", None, 3)),
    ],
)
def test_of_an_absolute_path_the_end_is_left(told: Any, left: Any) -> None:
    manifest = {"source": {"location": told}, "lineage": [{"labels": {"tokenizer": told}}], "settings": {"model": told}}
    assert redact_paths(manifest) == {
        "source": {"location": left},
        "lineage": [{"labels": {"tokenizer": left}}],
        "settings": {"model": left},
    }


def test_other_texts_stay_as_they_are() -> None:
    said = {"policy": {"system": "/no_think"}, "files": [{"path": "data/train-00000-of-00001.parquet"}]}
    assert redact_paths(said) == said


def test_one_line() -> None:
    assert one_line(ValueError("a\n  b\tc")) == "a b c"
    assert one_line("x" * 200) == "x" * 200 and one_line("x" * 201) == "x" * 199 + "…"
    assert one_line("abcdef", 4) == "abc…"
    assert describe_error(ValueError("a\nb")) == "ValueError: a b"


def test_did_you_mean() -> None:
    assert did_you_mean("shpp", ["shp", "spa"]) == "; did you mean shp?" and did_you_mean("x", ["shp"]) == ""
