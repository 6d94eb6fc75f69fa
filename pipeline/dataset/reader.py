"""The files of a published data set, checked against its manifest before anybody relies on them."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset import manifest
from pipeline.errors import InputError, StorageError
from pipeline.schema import PUBLISHED, SCHEMA_VERSION, SINCE
from pipeline.storage.location import parquet
from pipeline.text import one_line

Verify = Literal["hashes", "sizes"]
# Files that the manifest before the last one named, for readers that opened that data set.
SUPERSEDED = ".superseded"
_SLOW_BYTES = 2_000_000_000  # takes over a second to hash


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """One Parquet file. groups: rows of each row group; uncompressed: bytes that its columns take when decoded."""

    path: Path
    rows: int
    groups: tuple[int, ...]
    uncompressed: int


def read_manifest(root: Path, *, sealed: bool = True) -> dict[str, Any]:
    """The manifest of a data set that this version can read. sealed False: also one that was edited.

    Raises InputError, or StorageError when it is damaged.
    """
    content = manifest.load(root, sealed=sealed)
    if content is None:
        raise InputError(
            f"{root}: no {manifest.NAME}, so no finished data set is there; give the output folder of a finished run"
        )
    version = content.get("schema_version")
    if content.get("format") != "figa-pipeline" or not isinstance(version, str):
        raise InputError(f"{root / manifest.NAME}: not of this program; give the output folder of a finished run")
    # A minor version adds columns, which change nothing for those who don't know them.
    if version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
        raise InputError(
            f"{root}: has schema version {version}, this program reads {SCHEMA_VERSION.split('.')[0]}.x; "
            f"install figa-pipeline {content.get('version')}, which wrote it"
        )
    return content


def check_files(root: Path, content: dict[str, Any], verify: Verify) -> tuple[PublishedFile, ...]:
    """Compare the files that the manifest names with what it says of them.

    Always: that they are there, inside the folder, with the size, rows and column types that are expected. "hashes": their
    sha256 too. Raises StorageError naming the first that differs.
    """
    if verify not in ("hashes", "sizes"):
        raise ValueError(f"verify must be 'hashes' or 'sizes', got {verify!r}")
    try:
        entries = [(_inside(root, e["path"]), int(e["rows"]), int(e["bytes"]), e["sha256"]) for e in content["files"]]
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{root / manifest.NAME}: its list of files can't be read ({error!r})") from None
    if not entries:
        raise StorageError(f"{root / manifest.NAME}: names no file")
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import track

    total = sum(size for _, _, size, _ in entries)
    silent = verify == "sizes" or total < _SLOW_BYTES or not sys.stderr.isatty()
    files = []
    for path, rows, size, sha256 in track(
        entries, escape(f"checking {root}"), console=Console(stderr=True), transient=True, disable=silent
    ):
        check_bytes(path, size, sha256 if verify == "hashes" else None)
        files.append(_check_footer(path, rows))
    return tuple(files)


def read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A whole published file, every page checked. Raises StorageError when it is damaged."""
    try:
        with open_file(path) as file:
            return file.read(None if columns is None else list(columns))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise damaged(path, error) from error


def open_file(path: Path, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """Open a published file, also one that a newer publication has set aside since its manifest was read.

    Raises StorageError when it is gone: the publication after that deletes it.
    """
    try:
        # One file, not a data set: no guessing of partitions from folder names.
        return pq.ParquetFile(parquet(_place(path), _aside(path)), metadata=metadata, page_checksum_verification=True)
    except FileNotFoundError:
        raise StorageError(
            f"{path}: is gone; if the data set was published anew since it was opened, open it again"
        ) from None


def _place(path: Path) -> Path:
    if path.exists():
        return path
    aside = _aside(path)
    return aside if aside.exists() else path


def _aside(path: Path) -> Path:
    return path.parents[1] / SUPERSEDED / path.parent.name / path.name


def batches(path: Path, columns: Sequence[str] | None = None, rows: int = 4096) -> Iterator[pa.RecordBatch]:
    """A published file's rows, so many at a time. Raises StorageError when it is damaged."""
    try:
        with open_file(path) as file:
            # Of so few rows a thread a column has little to do.
            yield from file.iter_batches(rows, columns=None if columns is None else list(columns), use_threads=False)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise damaged(path, error) from error


def damaged(path: Path, reason: object) -> StorageError:
    line = one_line(reason, 160)
    return StorageError(
        f"{path}: not as it was published ({line}); restore it, or delete it and run the same command again"
    )


def _inside(root: Path, name: str) -> Path:
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{name!r} is outside the folder")
    return path


def check_bytes(path: Path, size: int, sha256: str | None) -> None:
    """Compare a file's size, and its sha256 unless that is None. Raises StorageError."""
    try:
        place = _place(path)
        found = place.stat().st_size
        if found != size:
            raise damaged(path, f"{found} bytes, the manifest says {size}")
        if sha256 is not None:
            with place.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    raise damaged(path, "its sha256 is not the manifest's")
    except FileNotFoundError:
        raise damaged(path, "missing") from None
    except OSError as error:
        raise damaged(path, error.strerror or error) from error


def _check_footer(path: Path, rows: int) -> PublishedFile:
    try:
        with open_file(path) as file:
            footer, columns = file.metadata, file.schema_arrow
    except (OSError, ValueError, pa.ArrowException) as error:
        raise damaged(path, error) from error
    if footer.num_rows != rows:
        raise damaged(path, f"{footer.num_rows} rows, the manifest says {rows}")
    for field in PUBLISHED:
        place = columns.get_field_index(field.name)
        if place < 0 and field.name in SINCE:
            continue
        if place < 0 or columns.field(place).type != field.type:
            raise damaged(path, f"column {field.name} is missing or not {field.type}")
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    return PublishedFile(path, rows, tuple(g.num_rows for g in groups), sum(g.total_byte_size for g in groups))
