"""Rows: that ids are unique and those of their content, and that every label follows from the stored texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.dataset.problem import Problem
from pipeline.dataset.reader import open_file
from pipeline.dataset.verify_files import Entry
from pipeline.labels.columns import LABELS, label_texts
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.schema import row_id
from pipeline.text import one_line

_NAMED_BY = ["id", "source", "split", "messages", "sample_index"]
# Rewards, diagnosis and reference may be missing: a source can bring pairs that were never scored.
_NEEDED = ["messages", "initial", "revised", *LABELS]
_BATCH = 512
# Called as rows are done: how many, and of how many the labels were made again.
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


def check_rows(
    entry: Entry, ids: Ids, tokenizer: LabelTokenizer | None, sample: Positions | None, advance: Advance
) -> Iterator[Problem]:
    """All rows of one file, batch by batch. tokenizer None: no labels; sample: check the labels of these rows only."""
    if not entry.path.exists():
        return
    try:
        with open_file(entry.path) as file:
            for start, table in _tables(file, sample if tokenizer else np.empty(0, np.int64)):
                yield from _check_ids(entry, start, table, ids)
                if tokenizer and table.column_names != _NAMED_BY:
                    yield from _check_labels(entry, start, table, tokenizer, sample)
                end = start + table.num_rows
                labelled = table.num_rows if sample is None else len(_within(sample, start, end))
                advance(table.num_rows, labelled if tokenizer else 0)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        yield Problem(entry.name, f"can't be read as Parquet: {one_line(error, 160)}")


def _tables(file: pq.ParquetFile, sample: Positions | None) -> Iterator[tuple[int, pa.Table]]:
    """The file's rows with the number of the first; of row groups without a sampled row, only what names a row."""
    start = 0
    for group in range(file.metadata.num_row_groups):
        end = start + file.metadata.row_group(group).num_rows
        whole = sample is None or len(_within(sample, start, end))
        for batch in file.iter_batches(_BATCH, row_groups=[group], columns=None if whole else _NAMED_BY):
            table = pa.Table.from_batches([batch])
            yield start, table if whole else table.select(_NAMED_BY)
            start += batch.num_rows


def _within(sample: Positions, start: int, end: int) -> Positions:
    return sample[np.searchsorted(sample, start) : np.searchsorted(sample, end)]


def _check_ids(entry: Entry, start: int, table: pa.Table, ids: Ids) -> Iterator[Problem]:
    good = []
    for number, row in enumerate(table.select(_NAMED_BY).to_pylist(), start):
        try:
            right = row["id"] == row_id(row["source"], row["split"], row["messages"], row["sample_index"])
        except (TypeError, KeyError):
            right = False
        if right:
            good.append(row["id"])
        else:
            yield Problem(entry.name, f"{row['id']!r} is not the id of its source, query and sample", number, "id")
    ids.add(good)


def _check_labels(
    entry: Entry, start: int, table: pa.Table, tokenizer: LabelTokenizer, sample: Positions | None
) -> Iterator[Problem]:
    numbers = np.arange(start, start + table.num_rows)
    if sample is not None:
        numbers = _within(sample, start, start + table.num_rows)
        table = table.take(pa.array(numbers - start))
    empty = [name for name in _NEEDED if name in table.column_names and table[name].null_count]
    if empty:
        for name in empty:
            first = int(np.flatnonzero(table[name].is_null().to_numpy())[0])
            yield Problem(entry.name, "has no value", int(numbers[first]), name)
        return
    try:
        made = label_texts(table, tokenizer)
    except (TypeError, ValueError, KeyError) as error:
        yield Problem(entry.name, f"can't be labelled: {one_line(error, 160)}", int(numbers[0]))
        return
    lost = {reject.index: reject for reject in made.rejects}
    for index, reject in lost.items():
        yield Problem(entry.name, f"can't be labelled: {reject.reason} {reject.evidence}", int(numbers[index]))
    kept = np.array([i for i in range(table.num_rows) if i not in lost], np.int64)
    stored = table.take(pa.array(kept)) if lost else table
    for name in LABELS:
        if name in stored.column_names and not stored[name].equals(made.rows[name]):
            yield from _differences(entry, name, stored[name], made.rows[name], numbers[kept])


def _differences(
    entry: Entry, name: str, stored: pa.ChunkedArray, expected: pa.ChunkedArray, numbers: Positions
) -> Iterator[Problem]:
    for number, found, wanted in zip(numbers.tolist(), stored.to_pylist(), expected.to_pylist(), strict=True):
        if found != wanted:
            yield Problem(entry.name, _explain(found, wanted), number, name)


def _explain(found: Any, wanted: Any) -> str:
    if not isinstance(found, list):
        return f"is {found}, by the texts it is {wanted}"
    if len(found) != len(wanted):
        return f"has {len(found)} tokens, by the texts there are {len(wanted)}"
    place = next(i for i, (a, b) in enumerate(zip(found, wanted, strict=True)) if a != b)
    return f"token {place} is {found[place]}, by the texts it is {wanted[place]}"


def columns_of(version: str) -> pa.Schema:
    """The published columns of a schema version of this major."""
    minor = int(version.split(".")[1])
    newer = [name for name, since in schema.SINCE.items() if int(since.split(".")[1]) > minor]
    return pa.schema([field for field in schema.PUBLISHED if field.name not in newer])
