"""Small tables in the shape of the stages' files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.storage import stage_files
from pipeline.storage.stage_files import Reject, StageFile
from tests.stages.tables import columns_after


def row(number: int) -> dict[str, Any]:
    """One row with all columns; what a stage doesn't have is left out by the schema."""
    ids = [number, number + 1, 2]
    return {
        "id": f"{number:016x}",
        "sample_index": 0,
        "source": "jsonl",
        "split": "train",
        "source_row": number,
        "messages": [{"role": "user", "content": f"question {number}?"}],
        "reference": f"reference {number}",
        "initial": f"initial {number}",
        "revised": f"revised {number}",
        "reward_reference": number / 8,
        "edit_distance": 0.5,
        "prompt_input_ids": [1] * (number % 5),
        **{
            f"{side}_{kind}": ids for side in ("revised", "initial") for kind in ("input_ids", "labels", "words", "ops")
        },
        **{f"{side}_weights": [0.0, 1.0, -0.5] for side in ("revised", "initial")},
    }


def table(stage: str, first: int, count: int) -> pa.Table:
    columns = columns_after(stage)
    rows = [row(number % 120) | {"source_row": number} for number in range(first, first + count)]
    return pa.Table.from_pylist([{k: v for k, v in r.items() if k in columns.names} for r in rows], schema=columns)


def commit(work: Path, *, rows: int = 20, rejects: int = 3, digest: str = "d1", stage: str = "score") -> StageFile:
    source = table("sample", 0, rows)
    gone = stage_files.reject_table(stage, source, [Reject(i, "not_scored", {"n": i}) for i in range(rejects)])
    return stage_files.commit(work, stage, 4, digest, table(stage, rejects, rows - rejects), gone)


def commit_shards(work: Path, sizes: list[int], *, rejected: int = 0) -> list[StageFile]:
    """Label shards of these sizes, rows numbered through; each with so many rejects of the source stage before it."""
    files, first = [], 0
    for shard, size in enumerate(sizes):
        source = table("source", 1000 + shard * rejected, rejected)
        rejects = [Reject(i, "duplicate_query" if i % 2 else "wrong_shape", {"got": "x"}) for i in range(rejected)]
        ledger = stage_files.reject_table("source", source, rejects)
        stage_files.commit(work, "source", shard, "d", table("source", first, size), ledger)
        files.append(
            stage_files.commit(work, "label", shard, "d", table("label", first, size), schema.REJECTED.empty_table())
        )
        first += size
    return files
