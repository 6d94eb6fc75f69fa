"""Which rows a reader of an epoch gets, in which order, and the numpy columns that it gets them in. Knows no files.

The order of an epoch. The row groups of all files are permuted, then cut into windows of at least `WINDOW_ROWS` rows, and
the rows of each window are permuted. So memory holds one window, whatever the size of the data set, and rows mix over
the whole of it by groups. A permutation is the stable argsort of raw PCG64 output seeded by (seed, epoch, window): numpy
promises that stream for all its versions, unlike that of `Generator.permutation`.

Who gets what. Ranks take equal, contiguous parts of that order; the workers of a rank take contiguous runs of its
batches, so that each part of a file is decoded by one process, at the borders by two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

WINDOW_ROWS = 4096

Array = npt.NDArray[Any]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ragged:
    """A list a row, the lists of different lengths; behaves as a sequence of arrays.

    values: shape (total,), the column's dtype. offsets: int64, shape (rows + 1,), from 0; row i is
    values[offsets[i]:offsets[i + 1]], which is what `ragged[i]` gives, without a copy.
    """

    values: Array
    offsets: Index

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Array:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row %= len(self)
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[Array]:
        return (self.values[start:end] for start, end in zip(self.offsets, self.offsets[1:], strict=False))

    @property
    def lengths(self) -> Index:
        return np.diff(self.offsets)

    def padded(self, fill: float, width: int | None = None) -> Array:
        """Shape (rows, width), filled up on the right. Width None: the longest row's. ValueError if a row is longer."""
        longest = int(self.lengths.max(initial=0))
        width = longest if width is None else width
        if longest > width:
            raise ValueError(f"a row has {longest} tokens, more than the width of {width}: nothing is cut silently")
        out = np.full((len(self), width), fill, self.values.dtype)
        out[np.arange(width) < self.lengths[:, None]] = self.values
        return out


Column = Array | Ragged
Batch = dict[str, Column]


def take(column: Column, rows: Index) -> Column:
    """The column's rows in another order."""
    if not isinstance(column, Ragged):
        return column[rows]
    # Copying row by row is twice as fast as one gather over an index of all values.
    starts, ends = column.offsets[rows], column.offsets[rows + 1]
    parts = [column.values[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    offsets = np.concatenate([[0], np.cumsum(ends - starts)])
    return Ragged(np.concatenate(parts) if parts else column.values[:0], offsets)


def cut(column: Column, start: int, end: int) -> Column:
    """Rows start … end, without a copy of the values."""
    if not isinstance(column, Ragged):
        return column[start:end]
    offsets = column.offsets[start : end + 1]
    return Ragged(column.values[offsets[0] : offsets[-1]], offsets - offsets[0])


def join(parts: Sequence[Column]) -> Column:
    """Columns of one kind, one behind the other."""
    if len(parts) == 1:
        return parts[0]
    ragged = [part for part in parts if isinstance(part, Ragged)]
    if not ragged:
        return np.concatenate(list(parts))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate([part.lengths for part in ragged]))])
    return Ragged(np.concatenate([part.values for part in ragged]), offsets)


@dataclass(frozen=True, slots=True)
class Window:
    """Rows that are read and shuffled together: `groups` are row groups as (file, group), `first` the place of its first
    row in the epoch; `order` None keeps the stored order."""

    first: int
    rows: int
    groups: tuple[tuple[int, int], ...]
    order: Index | None


def windows(group_rows: Sequence[Sequence[int]], seed: int | None, epoch: int, span: range) -> Iterator[Window]:
    """The windows that the places `span` of an epoch need. group_rows[f][g]: rows of group g of file f.

    seed None: stored order. The same arguments give the same order on every machine.
    """
    groups = [(file, group) for file, rows in enumerate(group_rows) for group in range(len(rows))]
    if seed is not None:
        groups = [groups[i] for i in permutation(len(groups), seed, epoch, 0)]
    first = number = 0
    gathered: list[tuple[int, int]] = []
    rows = 0
    for place, (file, group) in enumerate(groups):
        gathered.append((file, group))
        rows += group_rows[file][group]
        if rows < WINDOW_ROWS and place < len(groups) - 1:
            continue
        number += 1
        if max(first, span.start) < min(first + rows, span.stop):
            order = None if seed is None else permutation(rows, seed, epoch, number)
            yield Window(first, rows, tuple(sorted(gathered)), order)
        first, gathered, rows = first + rows, [], 0


def permutation(count: int, seed: int, epoch: int, stream: int) -> Index:
    keys = np.random.PCG64([seed, epoch, stream]).random_raw(count)
    return np.argsort(keys, kind="stable")


@dataclass(frozen=True, slots=True)
class Share:
    """What one reader gets of an epoch: the places `span`, cut into batches of `batch_size`; the first has `head` rows."""

    span: range
    head: int

    def batches(self, batch_size: int) -> Iterator[range]:
        start, end = self.span.start, self.span.start + self.head
        while start < self.span.stop:
            end = min(end, self.span.stop)
            yield range(start, end)
            start, end = end, end + batch_size


def share(
    rows: int,
    batch_size: int,
    *,
    rank: int = 0,
    world_size: int = 1,
    worker: int = 0,
    num_workers: int = 1,
    drop_last: bool = False,
    start_row: int = 0,
) -> Share:
    """The part of an epoch of `rows` rows that worker `worker` of rank `rank` reads.

    Over all ranks and workers every row is in one share; ranks differ by at most a row, and only the last batch of a rank
    is short. With drop_last every rank has the same number of batches, all full; fewer than world_size × batch_size
    rows are left out. start_row: rows of the rank that were consumed, taking the batches of its workers in turns
    as torch's DataLoader does.
    """
    if drop_last:
        count = rows // world_size // batch_size * batch_size
        first = rank * (rows // world_size)
    else:
        first, end = rows * rank // world_size, rows * (rank + 1) // world_size
        count = end - first
    consumed, begun = divmod(min(start_row, count), batch_size)
    # After a restart a DataLoader begins with worker 0 again: it takes the part of the one whose turn it was.
    worker = (worker + consumed) % num_workers
    base, extra = divmod(-(-count // batch_size), num_workers)
    # The workers with a batch more come last, so that the short batch is the last also when they take turns.
    start = (num_workers - extra) * base + worker * (base + 1) if worker < extra else (worker - extra) * base
    stop = start + base + (worker < extra)
    start += max(0, -(-(consumed - worker) // num_workers))
    skipped = begun if worker == consumed % num_workers else 0
    places = range(start * batch_size + skipped, min(stop * batch_size, count))
    return Share(range(first + places.start, first + max(places.start, places.stop)), batch_size - skipped)
