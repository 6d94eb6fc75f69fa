"""The files of a published data set, checked against its manifest before anybody relies on them."""

import errno
import hashlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.dataset import manifest
from pipeline.dataset.manifest import FileEntry
from pipeline.errors import InputError, StorageError
from pipeline.storage.remote import RemotePath
from pipeline.text import one_line

Verify = Literal["hashes", "sizes"]
# Files of the publication before the current one, for readers that opened that data set.
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
    """The manifest of a data set. sealed False: also an edited one. Raises InputError, StorageError for a damaged one."""
    content = manifest.load(root, sealed=sealed)
    if content is None:
        raise InputError(
            f"{root}: no {manifest.NAME}, so no finished data set is there; give the output folder of a finished run"
        )
    version = str(content.get("schema_version"))
    if content.get("format") != "figa-pipeline" or not re.fullmatch(r"\d+\.\d+", version):
        raise InputError(f"{root / manifest.NAME}: not of this program; give the output folder of a finished run")
    # Columns added by a minor version are ignored by readers that don't know them.
    major = schema.SCHEMA_VERSION.split(".")[0]
    if version.split(".", maxsplit=1)[0] != major:
        raise InputError(
            f"{root}: has schema version {version}, this program reads {major}.x; "
            f"install figa-pipeline {content.get('version')}, which wrote it"
        )
    return content


def check_files(root: Path, content: dict[str, Any], verify: Verify) -> tuple[PublishedFile, ...]:
    """Compare published files' size, rows and columns ("hashes": sha256 too) with the manifest. Raises StorageError."""
    if verify not in ("hashes", "sizes"):
        raise ValueError(f"verify must be 'hashes' or 'sizes', got {verify!r}")
    entries = manifest.file_entries(root, content)
    if not entries:
        raise StorageError(f"{root / manifest.NAME}: names no file")
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import track

    hashes = verify == "hashes"
    slow = hashes and sum(entry.bytes for entry in entries) >= _SLOW_BYTES
    progress = {"console": Console(stderr=True), "transient": True, "disable": not (slow and sys.stderr.isatty())}
    files = []
    for entry in track(entries, escape(f"checking {root}"), **progress):  # type: ignore[arg-type]
        if reason := difference(entry, hashes=hashes):
            raise damaged(entry.path, reason)
        with reading(entry.path) as file:
            for what, _ in footer_differences(file, entry, schema.published_columns(content["schema_version"])):
                raise damaged(entry.path, what)
            groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        rows = tuple(group.num_rows for group in groups)
        files.append(PublishedFile(entry.path, entry.rows, rows, sum(group.total_byte_size for group in groups)))
    return tuple(files)


def difference(entry: FileEntry, *, hashes: bool = True) -> str | None:
    """How a file's size, or with `hashes` its sha256, differs from the manifest; None when it doesn't."""
    place = _place(entry.path)
    try:
        size = place.stat().st_size
        if size != entry.bytes:
            return f"has {size} bytes, the manifest says {entry.bytes}"
        if hashes:
            with place.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
                    return "its sha256 is not the manifest's: some of its bytes were changed"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"can't be read: {error.strerror or error}"
    return None


def footer_differences(file: pq.ParquetFile, entry: FileEntry, expected: pa.Schema) -> Iterator[tuple[str, str | None]]:
    """How a file's rows, columns and types differ from what is expected: texts, each with the column that it is about."""
    if file.metadata.num_rows != entry.rows:
        yield f"has {file.metadata.num_rows} rows, the manifest says {entry.rows}", None
    columns = file.schema_arrow
    for field in expected:
        if field.name not in columns.names or columns.field(field.name).type != field.type:
            yield f"column {field.name} is missing or not {field.type}", field.name


def read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A whole published file, every page checked. Raises StorageError when it is damaged."""
    with reading(path) as file:
        return file.read(columns)


def batches(path: Path, columns: Sequence[str] | None = None, rows: int = 4096) -> Iterator[pa.RecordBatch]:
    """A published file's rows, `rows` at a time. Raises StorageError when it is damaged."""
    with reading(path) as file:
        yield from file.iter_batches(rows, columns=columns)


@contextmanager
def reading(path: Path) -> Iterator[pq.ParquetFile]:
    """An opened published file for a block, whose errors become StorageError naming the file."""
    try:
        with open_file(path) as file:
            yield file
    except (OSError, ValueError, pa.ArrowException) as error:
        raise damaged(path, error) from error


def open_file(path: Path) -> pq.ParquetFile:
    """Open a published file, also one that a newer publication has set aside since its manifest was read.

    Raises StorageError when it is gone: the publication after that deletes it.
    """
    place = _place(path)
    try:
        file = place.open("rb", _aside(path)) if isinstance(place, RemotePath) else place
        return pq.ParquetFile(file, page_checksum_verification=True)
    except FileNotFoundError:
        raise StorageError(
            f"{path}: is gone; if the data set was published again since it was opened, open it again"
        ) from None


def _place(path: Path) -> Path:
    aside = _aside(path)
    return aside if not path.exists() and aside.exists() else path


def _aside(path: Path) -> Path:
    return path.parents[1] / SUPERSEDED / path.parent.name / path.name


def damaged(path: Path, reason: object) -> StorageError:
    """reason: an error, or what `difference` says."""
    if os.strerror(errno.EACCES) in str(reason):
        return StorageError(f"{path}: can't be read ({one_line(reason)}); check who may read it")
    what = f"not as it was published ({one_line(reason)}); restore it, or delete it and run the command that made the data set"
    return StorageError(f"{path}: {what}")
