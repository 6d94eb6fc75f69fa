"""Rows: that ids are unique and those of their content, and that every label follows from the stored texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.dataset.manifest import FileEntry
from pipeline.dataset.reader import open_file
from pipeline.dataset.verify_files import UNREADABLE, Verification, VerifyProblem, unreadable
from pipeline.labels.columns import LABELS, label_texts
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.schema import row_id
from pipeline.text import one_line

_ID_COLUMNS = ["id", "source", "split", "messages", "sample_index"]
# Rewards, diagnosis and reference may be missing: a source can have pre-made pairs that were never scored.
_NEEDED = ["messages", "initial", "revised", *LABELS]
_BATCH = 512
Numbers = npt.NDArray[np.int64]
Ids = npt.NDArray[np.uint64]


def sampled(entries: list[FileEntry], count: int | None) -> list[Numbers | None]:
    """For each file, the row numbers of a sample of `count` rows of all files, always the same ones; None: all rows."""
    if count is None or not entries:
        return [None] * len(entries)
    ends = np.cumsum([entry.rows for entry in entries])
    total = int(ends[-1])
    chosen = np.sort(np.random.default_rng(0).choice(total, min(count, total), replace=False))
    parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
    return [part - (end - entry.rows) for part, end, entry in zip(parts, ends, entries, strict=True)]


def check_rows(
    entry: FileEntry,
    ids: list[Ids],
    tokenizer: LabelTokenizer | None,
    chosen: Numbers | None,
    result: Verification,
    advance: Callable[[int], None],
) -> Iterator[VerifyProblem]:
    """All rows of one file, batch by batch. Appends their ids to `ids`.

    chosen: the rows whose labels are checked, None: all. tokenizer None: no labels are checked.
    """
    if not entry.path.exists():
        return
    start = 0
    try:
        with open_file(entry.path) as file:
            for batch in file.iter_batches(_BATCH, columns=None if tokenizer else _ID_COLUMNS):
                table = pa.Table.from_batches([batch])
                yield from _check_ids(entry, start, table, ids)
                numbers = np.arange(start, start + len(table))
                if chosen is not None:
                    numbers = np.intersect1d(numbers, chosen)
                if tokenizer and len(numbers):
                    yield from _check_labels(entry, table.take(pa.array(numbers - start)), tokenizer, numbers)
                    result.labelled += len(numbers)
                result.rows += len(table)
                start += len(table)
                advance(len(table))
    except UNREADABLE as error:
        yield unreadable(entry, error)


def repeated(ids: list[Ids]) -> list[str]:
    """The ids that occur more than once."""
    values, counts = np.unique(np.concatenate([np.empty(0, np.uint64), *ids]), return_counts=True)
    return [f"{value:016x}" for value in values[counts > 1].tolist()]


def _check_ids(entry: FileEntry, start: int, table: pa.Table, ids: list[Ids]) -> Iterator[VerifyProblem]:
    good: list[int] = []
    for number, row in enumerate(table.select(_ID_COLUMNS).to_pylist(), start):
        if row["id"] == row_id(row["source"], row["split"], row["messages"], row["sample_index"]):
            good.append(int(row["id"], 16))
        else:
            yield VerifyProblem(
                entry.name, f"{row['id']!r} is not the id of its source, query and sample", number, "id"
            )
    ids.append(np.array(good, np.uint64))


def _check_labels(
    entry: FileEntry, table: pa.Table, tokenizer: LabelTokenizer, numbers: Numbers
) -> Iterator[VerifyProblem]:
    """Compare stored labels with those of the texts. numbers: the rows' places in the file."""
    empty = [name for name in _NEEDED if name in table.column_names and table[name].null_count]
    for name in empty:
        first = table[name].is_null().to_pylist().index(True)
        yield VerifyProblem(entry.name, "has no value", int(numbers[first]), name)
    if empty:
        return
    try:
        expected = label_texts(table, tokenizer)
    except (TypeError, ValueError, KeyError) as error:
        yield VerifyProblem(entry.name, f"can't be labelled: {one_line(error)}", int(numbers[0]))
        return
    for reject in expected.rejects:
        what = f"can't be labelled: {reject.reason} {reject.evidence}"
        yield VerifyProblem(entry.name, what, int(numbers[reject.index]))
    kept = np.delete(np.arange(table.num_rows), [reject.index for reject in expected.rejects])
    for name in LABELS:
        if name not in table.column_names:
            continue
        stored = table[name].take(pa.array(kept)).to_pylist()
        for number, value, wanted in zip(numbers[kept].tolist(), stored, expected.rows[name].to_pylist(), strict=True):
            if value != wanted:
                yield VerifyProblem(entry.name, _explain(value, wanted), number, name)


def _explain(value: Any, wanted: Any) -> str:
    if not isinstance(value, list):
        return f"is {value}, by the texts it is {wanted}"
    if len(value) != len(wanted):
        return f"has {len(value)} tokens, by the texts there are {len(wanted)}"
    place = next(i for i, (a, b) in enumerate(zip(value, wanted, strict=True)) if a != b)
    return f"token {place} is {value[place]}, by the texts it is {wanted[place]}"
