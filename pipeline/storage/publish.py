"""Publish: the shards of the last stage become evenly sized Parquet files, the rejects their ledger, then the manifest.

Streams shard by shard: memory holds one shard, whatever the size of the data set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.storage import manifest, stagefile
from pipeline.storage.atomic import remove, replacing
from pipeline.storage.stagefile import StageFile


def publish_rows(
    out: Path, files: list[StageFile], rows_per_file: int, metadata: dict[str, str]
) -> list[dict[str, Any]]:
    """Write data/train-…parquet in the source's order; returns the manifest's entries. No rows give one empty file."""
    total = sum(file.rows for file in files)
    count = max(1, -(-total // rows_per_file))
    chunks = _chunks(files, -(-total // count) if total else 0)
    return [write_part(out, number, count, tables, metadata) for number, tables in enumerate(chunks)]


def write_part(
    out: Path, number: int, count: int, tables: Iterable[pa.Table], metadata: dict[str, str]
) -> dict[str, Any]:
    """Write one of `count` files of published rows, streaming; returns the manifest's entry. Its metadata says which."""
    path = out / "data" / f"train-{number:05d}-of-{count:05d}.parquet"
    return _write(out, path, tables, schema.PUBLISHED.with_metadata({**metadata, "figa.part": path.stem}))


def publish_rejects(
    out: Path, work: Path, shards: int, stages: Sequence[str] = schema.STAGES
) -> tuple[list[dict[str, Any]], dict[str, Counter[str]]]:
    """Write rejected/<stage>.parquet for a run's stages; returns the manifest's entries and the reasons' counts by stage."""
    entries = []
    reasons: dict[str, Counter[str]] = {}
    for stage in stages:
        reasons[stage] = Counter()
        tables = [t for shard in range(shards) if (t := stagefile.read_rejects(work, stage, shard)).num_rows]
        for table in tables:
            reasons[stage].update(table["reason"].to_pylist())
        if tables:
            entries.append(write_ledger(out, stage, tables))
    return entries, reasons


def remove_unnamed(out: Path, named: list[dict[str, Any]]) -> None:
    """Delete Parquet files of an earlier publication that the manifest just written doesn't name."""
    keep = {out / entry["path"] for entry in named}
    for folder in ("data", "rejected"):
        for path in (out / folder).glob("*.parquet"):
            if path not in keep:
                remove(path)


def _chunks(files: list[StageFile], size: int) -> Iterator[list[pa.Table]]:
    """The shards' rows cut into lists of tables of `size` rows each, the last one shorter."""
    gathered: list[pa.Table] = []
    missing = size
    for file in files:
        table = stagefile.read(file).select(schema.PUBLISHED.names).cast(schema.PUBLISHED)
        while table.num_rows:
            part, table = table.slice(0, missing), table.slice(missing)
            gathered.append(part)
            missing -= part.num_rows
            if not missing:
                yield gathered
                gathered, missing = [], size
    if gathered or not size:
        yield gathered


def write_ledger(out: Path, stage: str, tables: Iterable[pa.Table]) -> dict[str, Any]:
    """Write rejected/<stage>.parquet; returns the manifest's entry."""
    return _write(out, out / "rejected" / f"{stage}.parquet", tables, schema.REJECTED)


def _write(out: Path, path: Path, tables: Iterable[pa.Table], target: pa.Schema) -> dict[str, Any]:
    rows = 0
    with replacing(path) as temporary, pq.ParquetWriter(temporary, target, **schema.parquet_options(target)) as writer:
        for table in tables:
            writer.write_table(table.replace_schema_metadata(target.metadata))
            rows += table.num_rows
    return manifest.file_entry(out, path, rows)
