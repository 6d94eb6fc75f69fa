"""Reading a published data set: only the files that its manifest names, and only as they were written.

pairs = pipeline.open_dataset("out/hh-rlhf")
pairs.to_table(["initial", "revised"])                                # Arrow; to_pandas(), to_datasets() likewise
for batch in pairs.iter_batches(32, shuffle=True, epoch=0, pad=True):  # numpy, for any trainer
    batch["revised_input_ids"], batch["revised_labels"], batch["revised_weights"]  # each of shape (32, longest)
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset import batches
from pipeline.dataset import reader as published
from pipeline.dataset.batches import Batch, Column, Ragged, Share, Window
from pipeline.dataset.reader import PublishedFile, Verify
from pipeline.errors import UsageError
from pipeline.storage.location import location

if TYPE_CHECKING:
    import datasets
    import pandas as pd

_IN_MEMORY_BYTES = 1 << 30
_OPEN_FILES = 64


def open_dataset(folder: str | Path, *, verify: Verify = "hashes") -> PairDataset:
    """Open the data set in an output folder.

    verify "hashes" compares every file with the manifest's sha256, about 1.8 GB/s; "sizes" only its length and rows, for
    folders that another process has just checked. Either way every page that is read later is checked against
    its own checksum.

    Raises InputError when no finished data set of a version that can be read is there, StorageError naming the
    file that is missing or not the one that was published.
    """
    root = location(folder)
    manifest = published.read_manifest(root)
    files = published.check_files(root, manifest, verify)
    return PairDataset(root, manifest, files)


@dataclass(frozen=True, slots=True)
class PairDataset:
    """An opened data set, one row a pair. Holds no data and no open file; can be sent to other processes.

    manifest: the content of manifest.json.
    """

    root: Path
    manifest: dict[str, Any] = field(repr=False)
    files: tuple[PublishedFile, ...]

    def __len__(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def schema(self) -> pa.Schema:
        """Columns and types, with the metadata of the published files (labels, tokenizer fingerprint)."""
        with published.open_file(self.files[0].path) as file:
            return file.schema_arrow

    def to_table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows, in stored order, in memory. columns None: all."""
        self._check(columns)
        return pa.concat_tables([published.read(file.path, columns) for file in self.files])

    def to_pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All rows; lists are numpy arrays."""
        return self.to_table(columns).to_pandas()

    def to_datasets(self, columns: Sequence[str] | None = None) -> datasets.Dataset:
        """A Hugging Face dataset. Up to 1 GiB it holds the rows in memory and no cache folder is touched; a larger one is
        converted once in the cache folder of `datasets` and memory-mapped from there."""
        import datasets
        from pyarrow.dataset import ParquetFragmentScanOptions

        self._check(columns)
        if sum(file.uncompressed for file in self.files) <= _IN_MEMORY_BYTES:
            return datasets.Dataset(self.to_table(columns))
        return datasets.Dataset.from_parquet(
            [str(file.path) for file in self.files],
            columns=None if columns is None else list(columns),
            fragment_scan_options=ParquetFragmentScanOptions(page_checksum_verification=True),
        )

    def iter_batches(
        self,
        batch_size: int = 32,
        *,
        columns: Sequence[str] | None = None,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        worker: int | None = None,
        num_workers: int | None = None,
        drop_last: bool = False,
        start_row: int = 0,
        pad: bool | int = False,
        pad_id: int | None = None,
    ) -> Iterator[Batch]:
        """One epoch's batches: dicts from column name to rows.

        columns: None is all; naming those that are needed is faster. Values by the column's type, B rows:
            numbers            array (B,), the stored dtype
            texts, messages    array (B,) of str, or of lists of {"role", "content"}
            token lists        `Ragged`: values (total,) and offsets (B + 1,) int64; ragged[i] is row i
                               with pad=True an array (B, longest), with pad=N (B, N), filled on the right: ids with pad_id
                               (None: the EOS), labels with −100, weights with 0, ops with −1
        shuffle: a new order every epoch, the same for the same (seed, epoch) on every machine; see `pipeline.dataset.batches`.
        rank, world_size: this process among those that train together: every row goes to one of them.
        worker, num_workers: likewise among the data workers of a rank. None: inside a worker of torch's DataLoader,
            that worker; else alone. Return the batches from the `__iter__` of an IterableDataset, batch_size=None.
        drop_last: full batches only, and the same number on every rank, as synchronous training needs.
        start_row: go on in an epoch after this rank took so many rows; the other arguments as before.

        Raises ValueError for arguments that make no sense, UsageError for an unknown column, StorageError for a file that
        was damaged after it was checked.
        """
        if (worker is None) != (num_workers is None):
            raise ValueError("worker and num_workers are given together or not at all")
        if worker is None or num_workers is None:
            worker, num_workers = _data_worker()
        if batch_size < 1 or not 0 <= rank < world_size or not 0 <= worker < num_workers:
            raise ValueError(
                f"batch_size {batch_size}, rank {rank} of {world_size}, worker {worker} of {num_workers}: at least 1, "
                "and ranks and workers count from 0"
            )
        if min(seed, epoch, start_row) < 0:
            raise ValueError(f"seed {seed}, epoch {epoch}, start_row {start_row}: must not be negative")
        self._check(columns)
        mine = batches.share(
            len(self),
            batch_size,
            rank=rank,
            world_size=world_size,
            worker=worker,
            num_workers=num_workers,
            drop_last=drop_last,
            start_row=start_row,
        )
        order = batches.windows([file.groups for file in self.files], seed if shuffle else None, epoch, mine.span)
        found = _batches(self.files, order, mine, batch_size, columns)
        if pad is False:
            return found
        fill = self.manifest["labels"]["eos_id"] if pad_id is None else pad_id
        return (_padded(batch, None if pad is True else pad, fill) for batch in found)

    def _check(self, columns: Sequence[str] | None) -> None:
        if isinstance(columns, str):
            raise UsageError(f"columns: a list of names is expected, got {columns!r}: give [{columns!r}]")
        names = self.schema.names if columns else []
        unknown = [name for name in columns or () if name not in names]
        if unknown:
            raise UsageError(f"{self.root}: has no column {unknown[0]!r}; there are {', '.join(names)}")


def _data_worker() -> tuple[int, int]:
    """This process's number among the workers of a torch DataLoader, and how many there are. Never imports torch."""
    torch_data = sys.modules.get("torch.utils.data")
    info = torch_data.get_worker_info() if torch_data else None
    return (info.id, info.num_workers) if info else (0, 1)


def _batches(
    files: Sequence[PublishedFile],
    order: Iterator[Window],
    mine: Share,
    batch_size: int,
    columns: Sequence[str] | None,
) -> Iterator[Batch]:
    """Cut the windows into the share's batches. A batch that spans windows is joined from their parts."""
    wanted = mine.batches(batch_size)
    batch = next(wanted, None)
    parts: list[Batch] = []
    with _Reader(files, columns) as reader:
        for window in order:
            rows = reader.window(window)
            while batch and batch.start < window.first + window.rows:
                start, end = batch.start - window.first, min(batch.stop - window.first, window.rows)
                if window.order is None:
                    parts.append({name: batches.cut(column, start, end) for name, column in rows.items()})
                else:
                    places = window.order[start:end]
                    parts.append({name: batches.take(column, places) for name, column in rows.items()})
                batch = range(window.first + end, batch.stop)
                if batch:
                    break
                yield {name: batches.join([part[name] for part in parts]) for name in parts[0]}
                parts, batch = [], next(wanted, None)


class _Reader:
    """Reads windows as numpy columns, in stored order. Keeps files open: parsing a footer costs as much as reading a group."""

    def __init__(self, files: Sequence[PublishedFile], columns: Sequence[str] | None) -> None:
        self._files = files
        self._columns = None if columns is None else list(columns)
        self._open: dict[int, pq.ParquetFile] = {}

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            file.close()

    def window(self, window: Window) -> Batch:
        tables = []
        for number, groups in itertools.groupby(window.groups, key=lambda group: group[0]):
            try:
                tables.append(self._file(number).read_row_groups([group for _, group in groups], self._columns))
            except (OSError, ValueError, pa.ArrowException) as error:
                raise published.damaged(self._files[number].path, error) from error
        table = pa.concat_tables(tables)
        return {name: _numpy(table[name]) for name in table.column_names}

    def _file(self, number: int) -> pq.ParquetFile:
        if number not in self._open:
            if len(self._open) >= _OPEN_FILES:
                self._open.pop(next(iter(self._open))).close()
            self._open[number] = published.open_file(self._files[number].path)
        return self._open[number]


def _numpy(column: pa.ChunkedArray) -> Column:
    if pa.types.is_list(column.type) and pa.types.is_primitive(column.type.value_type):
        return batches.join([_ragged(chunk) for chunk in column.chunks])
    if pa.types.is_nested(column.type):
        objects = np.empty(len(column), object)
        objects[:] = column.to_pylist()
        return objects
    values: batches.Array = column.to_numpy()
    return values


def _ragged(array: pa.ListArray) -> Ragged:
    offsets = array.offsets.to_numpy().astype(np.int64)
    return Ragged(array.flatten().to_numpy(), offsets - offsets[0])


def _padded(batch: Batch, width: int | None, pad_id: int) -> Batch:
    # Labels and operations as on the prompt.
    fill = {"ids": pad_id, "labels": -100, "weights": 0, "ops": -1}
    return {
        name: column.padded(fill.get(name.rpartition("_")[2], 0), width) if isinstance(column, Ragged) else column
        for name, column in batch.items()
    }
