"""What safe storage costs: stage files, publishing and the journal, each against the same bytes written bare.

One core, pairs of 2 × 500 tokens. Bare means: pyarrow writes or reads the same table, with the same options, and the file is
flushed to the disk; ours also hashes, renames, flushes the folder and writes the facts that make a shard count. Wall time:
the disk is what it waits for.
"""

from __future__ import annotations

import json
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.storage import stage_files
from tests.benchmarks import _pairs
from tests.benchmarks.measure import Figure, child, repeated, seconds

_SHARDS, _REPEATS = 8, 7
_ANSWERS = 100_000


def run(*, quick: bool) -> list[Figure]:
    shards, repeats = (1, 1) if quick else (_SHARDS, _REPEATS)
    with tempfile.TemporaryDirectory() as name, _pairs.one_core():
        tokenizer = _pairs.tokenizer()
        tables = [
            _pairs.labelled(_pairs.tokenized(rows, tokenizer), tokenizer)
            for rows in _pairs.shards(shards * (_pairs.SHARD // 8 if quick else _pairs.SHARD))
        ]
        return [*_tables(Path(name), tables, repeats), *_journal(Path(name), quick)]


def _tables(folder: Path, tables: list[pa.Table], repeats: int) -> list[Figure]:
    megabytes = sum(table.nbytes for table in tables) / 1e6
    bare = [folder / f"bare-{number}.arrow" for number in range(len(tables))]
    written, read, published, speeds = [], [], [], []
    for repeat in range(repeats):
        work = folder / str(repeat)
        files: list[stage_files.StageFile] = []
        ours = seconds(
            lambda: files.extend(_pairs.commit(work, number, table) for number, table in enumerate(tables))  # noqa: B023
        )
        limit = seconds(partial(_write_all, bare, tables))
        written.append(ours / limit)
        speeds.append(megabytes / ours)
        ours = seconds(lambda: [stage_files.read(file) for file in files])  # noqa: B023
        read.append(ours / seconds(lambda: [_read(path) for path in bare]))
        ours = seconds(partial(_pairs.publish, work / "out", files))
        published.append(ours / seconds(partial(_rewrite, folder / "whole.parquet", bare)))
    size = sum(path.stat().st_size for path in (folder / "0" / "out" / "data").iterdir()) / 1e6
    return [
        repeated("shard committed / written bare and flushed", "×", written, "at most 1.3"),
        repeated("the same", "MB/s of Arrow data", speeds),
        repeated("shard read, its hash checked / read bare", "×", read),
        repeated("published, hashed and named in a manifest / rewritten bare", "×", published, "at most 1.3"),
        Figure("published bytes / Arrow bytes", size / megabytes, "×"),
    ]


def _write_all(paths: list[Path], tables: list[pa.Table]) -> None:
    for path, table in zip(paths, tables, strict=True):
        _write(path, table)


def _write(path: Path, table: pa.Table) -> None:
    with pa.ipc.new_file(
        path, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
    ) as file:
        file.write_table(table)
    _flush(path)


def _read(path: Path) -> pa.Table:
    return pa.ipc.open_file(path).read_all()


def _rewrite(path: Path, sources: list[Path]) -> None:
    """All files as one, with the columns and options of a published one."""
    options = schema.parquet_options(schema.PUBLISHED)
    tables = [schema.complete(_read(source)).cast(schema.PUBLISHED) for source in sources]
    pq.write_table(pa.concat_tables(tables), path, row_group_size=1024, **options)
    _flush(path)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _journal(folder: Path, quick: bool) -> list[Figure]:
    answers, repeats = (_ANSWERS // 50, 1) if quick else (_ANSWERS, 5)
    filled, opened = [], []
    for repeat in range(repeats):
        file = folder / f"journal-{repeat}.db"
        filled.append(answers / _measure("fill", file, answers)["wall"])
        opened.append(_measure("reopen", file))
    return [
        repeated(f"journal: {answers:,} answers written, commits shared", "answers/s", filled),
        repeated("the same reopened and checked", "s", [told["wall"] for told in opened], "below 2"),
        repeated("peak memory of that", "MB", [told["peak_mb"] for told in opened], "below 300"),
    ]


def _measure(*arguments: object) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(child("tests.benchmarks._calls", *map(str, arguments)).stdout)
    return told
