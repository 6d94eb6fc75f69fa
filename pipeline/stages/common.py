"""What the stages share: building a stage's output from one result a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import RowReject
from pipeline.storage.stage_files import Reject, StageOutput

# Called as rows end: number of rows, number of them rejected.
Report = Callable[[int, int], None]


def collect(rows: pa.Table, added: pa.Schema, results: Sequence[dict[str, Any] | RowReject]) -> StageOutput:
    """Append the columns `added` to the rows whose result is a dict of their values; the others become rejects."""
    kept = [index for index, result in enumerate(results) if not isinstance(result, RowReject)]
    values = [result for result in results if not isinstance(result, RowReject)]
    survivors = rows if len(kept) == len(results) else rows.take(pa.array(kept, pa.int64()))
    for column in added:
        survivors = survivors.append_column(column, _array([v[column.name] for v in values], column.type))
    rejects = [
        Reject(index, result.reason, result.evidence, result.columns, result.retryable)
        for index, result in enumerate(results)
        if isinstance(result, RowReject)
    ]
    return StageOutput(survivors, rejects)


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """`pa.array`, of lists of numbers in half its time."""
    if not pa.types.is_list(kind):
        return pa.array(values, kind)
    offsets = [0, *accumulate(map(len, values))]
    numbers = np.fromiter(chain.from_iterable(values), kind.value_type.to_pandas_dtype(), offsets[-1])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(numbers), type=kind)


def row_seed(seed: int, row_id: str) -> int:
    """A seed of the row's own, so that no answer depends on which rows were asked before it."""
    return (seed + int(row_id[:8], 16)) % 2**31


# What tells queries apart: the samples of one are neighbours, in order.
QUERY = ["source", "split", "source_row"]


def queries(rows: pa.Table) -> list[int]:
    """The number of each row's query, counted from 0; rows have the columns `QUERY`. Shape (rows,)."""
    differs = np.zeros(rows.num_rows, np.int64)
    for name in QUERY:
        values = rows[name].to_numpy()
        differs[1:] |= values[1:] != values[:-1]
    numbers: list[int] = np.cumsum(differs).tolist()
    return numbers
