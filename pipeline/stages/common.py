"""What the stages share: building a stage's output from one result a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from pipeline.errors import RowReject
from pipeline.storage.stagefile import Reject, StageOutput

# Called as rows end: number of rows, number of them rejected.
Report = Callable[[int, int], None]


def collect(rows: pa.Table, added: pa.Schema, results: Sequence[dict[str, Any] | RowReject]) -> StageOutput:
    """Append the columns `added` to the rows whose result is a dict of their values; the others become rejects."""
    kept = [index for index, result in enumerate(results) if not isinstance(result, RowReject)]
    values = [result for result in results if not isinstance(result, RowReject)]
    survivors = rows if len(kept) == len(results) else rows.take(pa.array(kept, pa.int64()))
    for column in added:
        survivors = survivors.append_column(column, pa.array([v[column.name] for v in values], column.type))
    rejects = [
        Reject(index, result.reason, result.evidence, result.columns, result.retryable)
        for index, result in enumerate(results)
        if isinstance(result, RowReject)
    ]
    return StageOutput(survivors, rejects)


def row_seed(seed: int, row_id: str) -> int:
    """A seed of the row's own, so that no answer depends on which rows were asked before it."""
    return (seed + int(row_id[:8], 16)) % 2**31


# What tells queries apart: the samples of one are neighbours, in order.
QUERY = ["source", "split", "source_row"]


def queries(rows: pa.Table) -> list[int]:
    """The number of each row's query, counted from 0; rows have the columns `QUERY`. Shape (rows,)."""
    named = list(zip(*(rows[name].to_pylist() for name in QUERY), strict=True))
    numbers, number = [], -1
    for index, name in enumerate(named):
        number += index == 0 or name != named[index - 1]
        numbers.append(number)
    return numbers
