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

import pyarrow as pa

from pipeline.dataset import batches, reader
from pipeline.dataset.batches import Batch, Window
from pipeline.dataset.reader import PublishedFile, Verify
from pipeline.errors import UsageError
from pipeline.storage.location import location

if TYPE_CHECKING:
    import datasets
    import pandas as pd

_IN_MEMORY_BYTES = 1 << 30


def open_dataset(folder: str | Path, *, verify: Verify = "hashes") -> PairDataset:
    """Open the data set in an output folder.

    verify "hashes" compares every file with the manifest's sha256, about 1.8 GB/s; "sizes" only its length and rows, for
    folders that another process has just checked. Pages are checked by their own checksums whenever they are read.
    Raises InputError when no finished data set of a version that can be read is there, StorageError naming the
    file that is missing or not the one that was published.
    """
    root = location(folder)
    manifest = reader.read_manifest(root)
    files = reader.check_files(root, manifest, verify)
    return PairDataset(root, manifest, files)


@dataclass(frozen=True, slots=True)
class PairDataset:
    """An opened data set, one pair per row. Holds no data and no open file; can be sent to other processes."""

    root: Path
    manifest: dict[str, Any] = field(repr=False)
    files: tuple[PublishedFile, ...]

    def __len__(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def schema(self) -> pa.Schema:
        """Columns and types, with the metadata of the published files (labels, tokenizer fingerprint)."""
        with reader.open_file(self.files[0].path) as file:
            return file.schema_arrow

    def to_table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows, in stored order, in memory. columns None: all."""
        self._check(columns)
        return pa.concat_tables([reader.read(file.path, columns) for file in self.files])

    def to_pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All rows; lists are numpy arrays."""
        frame: pd.DataFrame = self.to_table(columns).to_pandas()
        return frame

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
        """One epoch's batches: dicts from column name to rows, as numpy arrays (`batches.to_numpy` says of which shape).

        columns: None is all; naming those that are needed is faster. shuffle: a new order every epoch, the same for the same
        (seed, epoch) on every machine. rank, world_size: this process among those that train together; every row goes to one of
        them. worker, num_workers: likewise among the data workers of a rank; None: inside a worker of torch's DataLoader, that
        worker, else alone (return the batches from the `__iter__` of an IterableDataset, batch_size=None). drop_last: full
        batches only, the same number on every rank. start_row: continue after this rank took so many rows. pad: True pads token
        lists to the longest of the batch, a number to that length: ids with pad_id (None: the EOS), labels with −100, weights
        with 0, ops with −1.
        Raises ValueError for arguments that make no sense, UsageError for an unknown column, StorageError for a file that was
        damaged after it was checked.
        """
        if worker is None and num_workers is None:
            worker, num_workers = _data_worker()
        if worker is None or num_workers is None:
            raise ValueError("worker and num_workers are given together or not at all")
        if min(seed, epoch) < 0:
            raise ValueError(f"seed {seed}, epoch {epoch}: must not be negative")
        self._check(columns)
        place = (rank, world_size, worker, num_workers)
        share = batches.share(len(self), batch_size, *place, drop_last=drop_last, start_row=start_row)
        tables = self._tables(share, seed if shuffle else None, epoch, columns)
        return (self._to_numpy(table, pad, pad_id) for table in tables)

    def _to_numpy(self, table: pa.Table, pad: bool | int, pad_id: int | None) -> Batch:
        batch = batches.to_numpy(table)
        if pad is False:
            return batch
        fill = self.manifest["labels"]["eos_id"] if pad_id is None else pad_id
        return batches.padded(batch, None if pad is True else pad, fill)

    def _tables(
        self, wanted: list[range], seed: int | None, epoch: int, columns: Sequence[str] | None
    ) -> Iterator[pa.Table]:
        """The batches `wanted`, ascending and without gaps. A batch that spans windows is joined from its parts."""
        if not wanted:
            return
        span = range(wanted[0].start, wanted[-1].stop)
        remaining = iter(wanted)
        batch = next(remaining, None)
        parts: list[pa.Table] = []
        for window in batches.windows([file.groups for file in self.files], seed, epoch, span):
            rows = self._read(window, columns)
            while batch and batch.start < window.first + window.rows:
                start, end = batch.start - window.first, min(batch.stop - window.first, window.rows)
                if window.order is None:
                    parts.append(rows.slice(start, end - start))
                else:
                    parts.append(rows.take(pa.array(window.order[start:end])))
                batch = range(window.first + end, batch.stop)
                if batch:
                    break
                yield pa.concat_tables(parts)
                parts, batch = [], next(remaining, None)

    def _read(self, window: Window, columns: Sequence[str] | None) -> pa.Table:
        """A window's rows, in stored order."""
        tables = []
        for number, groups in itertools.groupby(window.groups, key=lambda group: group[0]):
            with reader.reading(self.files[number].path) as file:
                tables.append(file.read_row_groups([group for _, group in groups], columns))
        return pa.concat_tables(tables).combine_chunks()

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
