"""Publish rows: the shards of the last stage become evenly sized Parquet files, the rejects one file per stage.

Streams shard by shard: memory holds one shard, whatever the size of the data set. How files are named, and what happens to
those of an earlier publication: see the docstring of `pipeline.storage`.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.dataset import manifest
from pipeline.dataset.reader import SUPERSEDED
from pipeline.storage import stage_files
from pipeline.storage.atomic import move, remove, replacing
from pipeline.storage.ours import PUBLISHED
from pipeline.storage.stage_files import Reject, StageFile

# What the manifest says of one file.
Entry = dict[str, Any]
# Small row groups compress badly, large ones must fit into a writer's memory: a group ends at the first of these.
_GROUP_ROWS, _GROUP_BYTES = 1024, 64_000_000


def publish_rows(
    out: Path, files: list[StageFile], rows_per_file: int, metadata: dict[str, str], most: int | None = None
) -> list[Entry]:
    """Write data/train-…parquet in the source's order; returns the manifest's entries. No rows give one empty file.

    most: the first rows that are published; `beyond` has the others.
    """
    total = sum(file.rows for file in files)
    total = total if most is None else min(total, most)
    rows = (schema.complete(stage_files.read(file).slice(0, max(0, total - start))) for file, start in _starts(files))
    tables = (table.select(schema.PUBLISHED.names).cast(schema.PUBLISHED) for table in rows)
    return write_rows(out, tables, total, rows_per_file, metadata)


def beyond(files: list[StageFile], most: int | None) -> Iterator[pa.Table]:
    """Tables of rejects: the finished rows after the first `most`, none without a number. A larger one publishes them."""
    if most is None:
        return
    for file, start in _starts(files):
        rejects = [Reject(index, "beyond_target", {"target": most}) for index in range(max(0, most - start), file.rows)]
        if rejects:
            yield stage_files.reject_table("label", stage_files.read(file), rejects)


def _starts(files: list[StageFile]) -> Iterator[tuple[StageFile, int]]:
    """Each file with the number of rows before it."""
    return zip(files, itertools.accumulate((file.rows for file in files), initial=0), strict=False)


def write_rows(
    out: Path, tables: Iterable[pa.Table], total: int, rows_per_file: int, metadata: dict[str, str]
) -> list[Entry]:
    """Like publish_rows, for tables with `total` rows together, however these are divided among them."""
    count = max(1, -(-total // rows_per_file))
    parts = itertools.groupby(_cut(tables, -(-total // count)), key=lambda part: part[0])
    entries = [write_part(out, number, count, (table for _, table in part), metadata) for number, part in parts]
    return entries or [write_part(out, 0, 1, [], metadata)]


def write_part(out: Path, number: int, count: int, tables: Iterable[pa.Table], metadata: dict[str, str]) -> Entry:
    """Write file `number` of `count` files of published rows, streaming; returns the manifest's entry."""
    path = out / "data" / f"train-{number:05d}-of-{count:05d}.parquet"
    return _write(out, path, tables, schema.PUBLISHED.with_metadata({**metadata, "figa.part": path.stem}))


def publish_rejects(
    out: Path, work: Path, shards: int, stages: Sequence[str] = schema.STAGES, last: Iterable[pa.Table] = ()
) -> tuple[list[Entry], dict[str, Counter[str]]]:
    """Write rejected/<stage>.parquet for a run's stages; returns the manifest's entries and the reasons' counts by stage.

    last: further rejects of the last stage.
    """
    tables: dict[str, Iterable[pa.Table]] = {
        stage: map(partial(stage_files.read_rejects, work, stage), range(shards)) for stage in stages
    }
    return write_ledgers(out, tables | {stages[-1]: itertools.chain(tables[stages[-1]], last)})


def write_ledgers(out: Path, ledgers: Mapping[str, Iterable[pa.Table]]) -> tuple[list[Entry], dict[str, Counter[str]]]:
    """Like publish_rejects, for tables of rejects by stage. A stage without any has no file."""
    entries = []
    reasons: dict[str, Counter[str]] = {stage: Counter() for stage in ledgers}
    for stage, ledger in ledgers.items():
        tables = _counted(ledger, reasons[stage])
        if (first := next(tables, None)) is not None:
            entries.append(write_ledger(out, stage, itertools.chain([first], tables)))
    return entries, reasons


def forget_superseded(out: Path) -> None:
    """Delete the files that the current publication set aside for readers of the one before."""
    for path in (out / SUPERSEDED).glob("*/*.parquet"):
        if PUBLISHED.fullmatch(path.name):
            remove(path)


def supersede(out: Path, named: list[Entry]) -> None:
    """Set aside the Parquet files that the manifest just written doesn't name: readers may be using them."""
    keep = {out / entry["path"] for entry in named}
    for folder in ("data", "rejected"):
        for path in (out / folder).glob("*.parquet"):
            if path not in keep and PUBLISHED.fullmatch(path.name):
                move(path, out / SUPERSEDED / folder / path.name)


def _cut(tables: Iterable[pa.Table], size: int) -> Iterator[tuple[int, pa.Table]]:
    """The rows as smaller tables, each with the number of the file of `size` rows that it goes to whole."""
    row = 0
    for table in tables:
        done = 0
        while done < table.num_rows:
            part = table.slice(done, size - row % size)
            yield row // size, part
            row, done = row + part.num_rows, done + part.num_rows


def _counted(tables: Iterable[pa.Table], reasons: Counter[str]) -> Iterator[pa.Table]:
    for table in tables:
        if table.num_rows:
            reasons.update(table["reason"].to_pylist())
            yield table


def write_ledger(out: Path, stage: str, tables: Iterable[pa.Table]) -> Entry:
    """Write rejected/<stage>.parquet; returns the manifest's entry."""
    return _write(out, out / "rejected" / f"{stage}.parquet", tables, schema.REJECTED)


def _write(out: Path, path: Path, tables: Iterable[pa.Table], target: pa.Schema) -> Entry:
    rows = 0
    entry: Entry = {}

    def choose_path(finished: Path) -> Path:
        # The file is hashed while it is on this machine: a remote one would have to be fetched again.
        nonlocal entry
        entry = manifest.file_entry(finished.parent, finished, rows)
        chosen = name_for(out, path, entry["sha256"])
        entry["path"] = chosen.relative_to(out).as_posix()
        return chosen

    options = schema.parquet_options(target)
    replacement = replacing(path, choose_path=choose_path)
    with replacement as temporary, pq.ParquetWriter(temporary, target, **options) as writer:
        for table in _row_groups(tables):
            writer.write_table(table.replace_schema_metadata(target.metadata), row_group_size=table.num_rows)
            rows += table.num_rows
    return entry


def name_for(out: Path, path: Path, sha256: str) -> Path:
    """The final path of a file with this sha256.

    `path` in a first publication. Later, the name of the current file with the same bytes, or else a new one: readers of
    the current manifest must find the bytes that it names.
    """
    current = manifest.load_or_none(out)
    if current is None:
        return path
    known = [*current.get("files", ()), *current.get("rejected_files", ())]
    same = (out / entry["path"] for entry in known if entry["sha256"] == sha256)
    return next((place for place in same if place.parent == path.parent), path.with_stem(f"{path.stem}-{sha256[:8]}"))


def _row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Row groups, which depend on the rows alone and not on the tables that they come in, unless rows are very large."""
    rest: pa.Table | None = None
    for table in tables:
        rest = pa.concat_tables([rest, table]) if rest else table
        while rest.num_rows >= _GROUP_ROWS or rest.nbytes >= _GROUP_BYTES:
            yield rest.slice(0, _GROUP_ROWS)
            rest = rest.slice(_GROUP_ROWS)
    if rest:
        yield rest
