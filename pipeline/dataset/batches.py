"""Which rows a reader of an epoch gets, in which order, and the numpy columns that it gets them in. Knows no files.

The order of an epoch: the row groups of all files are permuted, then cut into windows of at least `WINDOW_ROWS` rows, and
the rows of each window are permuted, so that memory holds one window. A permutation is the stable argsort of raw PCG64
output seeded by (seed, epoch, window): numpy guarantees that stream for all its versions. Ranks take equal, contiguous parts
of that order, and the workers of a rank contiguous runs of its batches, so that few files are decoded twice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

WINDOW_ROWS = 4096

Array = npt.NDArray[Any]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ragged:
    """One list per row, of different lengths; behaves as a sequence of arrays, which are views.

    values: shape (total,), the column's dtype. offsets: int64, shape (rows + 1,); row i is values[offsets[i]:offsets[i + 1]].
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
        return (self[row] for row in range(len(self)))

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


def to_numpy(table: pa.Table) -> Batch:
    """Copies of the columns by name, for B rows.

    Numbers: array (B,) of the stored dtype; texts and messages: array (B,) of str, or of lists of {"role", "content"}; token
    lists: `Ragged`, values (total,) and offsets (B + 1,) int64, where ragged[i] is row i.
    """
    return {name: _column(table[name]) for name in table.column_names}


def _column(column: pa.ChunkedArray) -> Column:
    if pa.types.is_list(column.type) and pa.types.is_primitive(column.type.value_type):
        lists = column.combine_chunks()
        offsets = lists.offsets.to_numpy().astype(np.int64)
        return Ragged(np.array(lists.flatten().to_numpy()), offsets - offsets[0])
    if pa.types.is_nested(column.type):
        objects = np.empty(len(column), object)
        objects[:] = column.to_pylist()
        return objects
    return np.array(column.to_numpy())


def padded(batch: Batch, width: int | None, pad_id: int) -> Batch:
    """The batch with token lists as arrays of shape (rows, width); filled up as on the prompt, ids with `pad_id`."""
    fill = {"ids": pad_id, "labels": -100, "weights": 0, "ops": -1}
    return {
        name: column.padded(fill.get(name.rpartition("_")[2], 0), width) if isinstance(column, Ragged) else column
        for name, column in batch.items()
    }


@dataclass(frozen=True, slots=True)
class Window:
    """Rows that are read and shuffled together, from place `first` of the epoch; groups: (file, group); order None: stored."""

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
    first = number = rows = 0
    gathered: list[tuple[int, int]] = []
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
    """A permutation of `count` rows, int64 of shape (count,), that depends on the arguments alone."""
    keys = np.random.PCG64([seed, epoch, stream]).random_raw(count)
    return np.argsort(keys, kind="stable")


def share(
    rows: int,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    worker: int = 0,
    num_workers: int = 1,
    *,
    drop_last: bool = False,
    start_row: int = 0,
) -> list[range]:
    """The batches, as places of an epoch of `rows` rows, that worker `worker` of rank `rank` reads.

    Every row is in one batch; ranks differ by at most a row, and only a rank's last batch is short. drop_last: the same number
    of full batches per rank. start_row: consumed rows of the rank, its workers taking turns. Raises ValueError.
    """
    if batch_size < 1 or not 0 <= rank < world_size or not 0 <= worker < num_workers or start_row < 0:
        reader = (
            f"batch_size {batch_size}, rank {rank} of {world_size}, worker {worker} of {num_workers}, row {start_row}"
        )
        raise ValueError(f"{reader}: a batch has at least 1 row, and ranks, workers and rows count from 0")
    if drop_last:
        first = rank * (rows // world_size)
        end = first + rows // world_size // batch_size * batch_size
    else:
        first, end = rows * rank // world_size, rows * (rank + 1) // world_size
    batches = [range(start, min(start + batch_size, end)) for start in range(first, end, batch_size)]
    consumed, rest = divmod(min(start_row, end - first), batch_size)
    # After a restart a DataLoader begins with worker 0 again: it takes the part of the worker whose turn it was.
    resumed = (worker + consumed) % num_workers
    base, extra = divmod(len(batches), num_workers)
    # The workers with one batch more come last, so that the short batch is the last also when they take turns.
    if resumed < extra:
        place, count = (num_workers - extra) * base + resumed * (base + 1), base + 1
    else:
        place, count = (resumed - extra) * base, base
    own = batches[place + max(0, -(-(consumed - resumed) // num_workers)) : place + count]
    if own and worker == 0:
        own[0] = own[0][rest:]
    return [batch for batch in own if batch]
