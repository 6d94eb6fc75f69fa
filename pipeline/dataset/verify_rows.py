"""Rows: that ids are unique and those of their content, and that every label follows from the stored texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.manifest import FileEntry
from pipeline.dataset.reader import open_file
from pipeline.dataset.verify_files import UNREADABLE, VerifyProblem, unreadable
from pipeline.errors import one_line
from pipeline.labels.columns import LABELS, label_texts
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.schema import row_id

_ID_COLUMNS = ["id", "source", "split", "messages", "sample_index"]
# Rewards, diagnosis and reference may be missing: a source can have pre-made pairs that were never scored.
_NEEDED = ["messages", "initial", "revised", *LABELS]
_BATCH = 512
# Called after each batch: rows, and how many of them had their labels compared.
Advance = Callable[[int, int], None]
Positions = npt.NDArray[np.int64]


class Ids:
    """All ids seen, at 8 bytes each."""

    def __init__(self) -> None:
        self._seen: list[npt.NDArray[np.uint64]] = []

    def add(self, ids: list[str]) -> None:
        self._seen.append(np.array([int(name, 16) for name in ids], np.uint64))

    def repeated(self) -> list[str]:
        if not self._seen:
            return []
        values, counts = np.unique(np.concatenate(self._seen), return_counts=True)
        return [f"{value:016x}" for value in values[counts > 1].tolist()]


def draw(entries: list[FileEntry], count: int) -> list[Positions]:
    """For each file the row numbers of a sample of `count` rows over all files, always the same ones."""
    total = sum(entry.rows for entry in entries)
    drawn = np.sort(np.random.default_rng(0).choice(total, min(count, total), replace=False))
    ends = np.cumsum([entry.rows for entry in entries])
    parts = np.split(drawn, np.searchsorted(drawn, ends[:-1]))
    return [part - (end - entry.rows) for part, end, entry in zip(parts, ends, entries, strict=True)]


def check_rows(
    entry: FileEntry, ids: Ids, tokenizer: LabelTokenizer | None, sample: Positions | None, advance: Advance
) -> Iterator[VerifyProblem]:
    """All rows of one file, batch by batch. tokenizer None: no labels; sample: check the labels of these rows only."""
    if not entry.path.exists():
        return
    if tokenizer is None:
        sample = np.empty(0, np.int64)
    try:
        with open_file(entry.path) as file:
            for start, table in _tables(file, sample):
                yield from _check_ids(entry, start, table, ids)
                inside = np.arange(table.num_rows) if sample is None else _within(sample, start, table.num_rows)
                if tokenizer and len(inside):
                    yield from _check_labels(entry, table.take(pa.array(inside)), tokenizer, start + inside)
                advance(table.num_rows, len(inside))
    except UNREADABLE as error:
        yield unreadable(entry, error)


def _tables(file: pq.ParquetFile, sample: Positions | None) -> Iterator[tuple[int, pa.Table]]:
    """The file's rows with the number of the first; only the id's columns of row groups without a sampled row."""
    start = 0
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        whole = sample is None or len(_within(sample, start, rows))
        for batch in file.iter_batches(_BATCH, row_groups=[group], columns=None if whole else _ID_COLUMNS):
            yield start, pa.Table.from_batches([batch])
            start += batch.num_rows


def _within(sample: Positions, start: int, rows: int) -> Positions:
    """The sampled ones of the rows from `start` on, counted from there."""
    return sample[np.searchsorted(sample, start) : np.searchsorted(sample, start + rows)] - start


def _check_ids(entry: FileEntry, start: int, table: pa.Table, ids: Ids) -> Iterator[VerifyProblem]:
    good = []
    for number, row in enumerate(table.select(_ID_COLUMNS).to_pylist(), start):
        if row["id"] == row_id(row["source"], row["split"], row["messages"], row["sample_index"]):
            good.append(row["id"])
        else:
            yield VerifyProblem(
                entry.name, f"{row['id']!r} is not the id of its source, query and sample", number, "id"
            )
    ids.add(good)


def _check_labels(
    entry: FileEntry, table: pa.Table, tokenizer: LabelTokenizer, numbers: Positions
) -> Iterator[VerifyProblem]:
    """Compare stored labels with those of the texts. numbers: the rows' places in the file."""
    empty = [name for name in _NEEDED if name in table.column_names and table[name].null_count]
    if empty:
        for name in empty:
            first = int(np.flatnonzero(table[name].is_null().to_numpy())[0])
            yield VerifyProblem(entry.name, "has no value", int(numbers[first]), name)
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
    stored = table.take(pa.array(kept))
    for name in LABELS:
        if name in stored.column_names and not stored[name].equals(expected.rows[name]):
            yield from _differences(entry, name, stored[name], expected.rows[name], numbers[kept])


def _differences(
    entry: FileEntry, name: str, stored: pa.ChunkedArray, expected: pa.ChunkedArray, numbers: Positions
) -> Iterator[VerifyProblem]:
    for number, value, wanted in zip(numbers.tolist(), stored.to_pylist(), expected.to_pylist(), strict=True):
        if value != wanted:
            yield VerifyProblem(entry.name, _explain(value, wanted), number, name)


def _explain(value: Any, wanted: Any) -> str:
    if not isinstance(value, list):
        return f"is {value}, by the texts it is {wanted}"
    if len(value) != len(wanted):
        return f"has {len(value)} tokens, by the texts there are {len(wanted)}"
    place = next(i for i, (a, b) in enumerate(zip(value, wanted, strict=True)) if a != b)
    return f"token {place} is {value[place]}, by the texts it is {wanted[place]}"
