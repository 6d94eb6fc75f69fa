"""Rows: that ids are those of their content, and that every label follows from the stored texts. Knows no files."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.labels.columns import LABELS, label_texts
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.schema import row_id
from pipeline.text import one_line

ID_COLUMNS = ["id", "source", "split", "messages", "sample_index"]
# Rewards, diagnosis and reference may be missing: a source can have pre-made pairs that were never scored.
_NEEDED = ["messages", "initial", "revised", *LABELS]
Numbers = npt.NDArray[np.int64]
# What is wrong, the row's place in the table, and the column that it is about.
RowProblem = tuple[str, int, str | None]


def sampled(rows: list[int], count: int | None) -> list[Numbers | None]:
    """For files with `rows` rows, the row numbers of a sample of `count` of them, always the same ones; None: all rows."""
    if count is None or not rows:
        return [None] * len(rows)
    ends = np.cumsum(rows)
    chosen = np.sort(np.random.default_rng(0).choice(sum(rows), min(count, sum(rows)), replace=False))
    parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
    return [part - (end - size) for part, end, size in zip(parts, ends, rows, strict=True)]


def check_ids(table: pa.Table) -> Iterator[RowProblem]:
    """That each id is the one of its row's source, query and sample."""
    for place, row in enumerate(table.select(ID_COLUMNS).to_pylist()):
        if row["id"] != row_id(row["source"], row["split"], row["messages"], row["sample_index"]):
            yield f"{row['id']!r} is not the id of its source, query and sample", place, "id"


def check_labels(table: pa.Table, tokenizer: LabelTokenizer) -> Iterator[RowProblem]:
    """That stored labels are those of the texts."""
    empty = [name for name in _NEEDED if name in table.column_names and table[name].null_count]
    for name in empty:
        yield "has no value", table[name].is_null().to_pylist().index(True), name
    if empty:
        return
    try:
        expected = label_texts(table, tokenizer)
    except (TypeError, ValueError, KeyError) as error:
        yield f"can't be labelled: {one_line(error)}", 0, None
        return
    for reject in expected.rejects:
        yield f"can't be labelled: {reject.reason} {reject.evidence}", reject.index, None
    if "initial_logprobs" in table.column_names:
        lengths = (pc.list_value_length(table[name]).to_pylist() for name in ("initial_logprobs", "initial_input_ids"))
        for place, (given, wanted) in enumerate(zip(*lengths, strict=True)):
            if given not in (None, wanted):
                yield f"has {given} tokens, by the texts there are {wanted}", place, "initial_logprobs"
    kept = np.delete(np.arange(table.num_rows), [reject.index for reject in expected.rejects])
    for name in LABELS:
        if name in table.column_names:
            stored = table[name].take(pa.array(kept)).to_pylist()
            for place, value, wanted in zip(kept.tolist(), stored, expected.rows[name].to_pylist(), strict=True):
                if value != wanted:
                    yield _explain(value, wanted), place, name


def _explain(value: Any, wanted: Any) -> str:
    if not isinstance(value, list):
        return f"is {value}, by the texts it is {wanted}"
    if len(value) != len(wanted):
        return f"has {len(value)} tokens, by the texts there are {len(wanted)}"
    place = next(i for i, (a, b) in enumerate(zip(value, wanted, strict=True)) if a != b)
    return f"token {place} is {value[place]}, by the texts it is {wanted[place]}"
