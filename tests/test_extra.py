"""`source.keep`: columns of the source are published as JSON, and stay through relabelling and merging."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from pipeline import open_dataset
from pipeline.cli.main import main
from pipeline.config.settings import CurationConfig
from pipeline.curate import curate, in_threads
from pipeline.dataset.verify import verify
from pipeline.run import shards
from tests.conftest import Silent

PAIR = {
    "prompt": "Who?",
    "initial": "It is one of us.",
    "revised": "It is one of them.",
    "feedback": ["Wrong.", "Short."],
}
KEPT = {"domain": "general", "scores": [1, None, {"a": "\ud800é"}], "nothing": None}


def test_kept_columns(settings: Callable[..., CurationConfig], tmp_path: Path) -> None:
    rows = [PAIR | KEPT, PAIR | {"prompt": "What?", "domain": float("nan")}, PAIR | {"prompt": "Hm?", "revised": " "}]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    kept = {"source__name": "jsonl", "source__input": str(tmp_path / "pairs.jsonl")}
    for out, names in (("plain", ()), ("kept", tuple(KEPT))):
        shards.forget_contexts()
        curate(settings(out=out, source__keep=names, **kept), in_threads, Silent())
    assert main(["relabel", str(tmp_path / "kept"), "--granularity", "word", "--out", str(tmp_path / "words")]) == 0
    for root in (tmp_path / "kept", tmp_path / "words"):
        first, second = pq.read_table(root / "data").to_pylist()
        assert json.loads(first["extra"]) == KEPT | {"scores": [1, None, {"a": "\ufffdé"}]}
        assert json.loads(second["extra"]) == dict.fromkeys(KEPT)
        assert (first["critique"], first["diagnosis"]) == ("Wrong.\nShort.", "other")
        assert [str(problem) for problem in verify(root).problems] == []
    assert open_dataset(tmp_path / "plain").to_table()["extra"].null_count == 2
    for root in (tmp_path / "plain", tmp_path / "kept"):
        assert main(["export", str(root), "--format", "spa", "--out", str(tmp_path / f"spa-{root.name}")]) == 0
