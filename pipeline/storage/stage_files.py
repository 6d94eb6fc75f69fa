"""What a stage made of a shard, on disk: rows, rejects, and a small JSON file that makes them count.

    work/<stage>/00000.arrow            the rows that go on
    work/<stage>/00000.rejects.arrow    the rows that left here, when there are any
    work/<stage>/00000.json             written last: {digest, inputs, content, rows, rejected, …}

`digest` covers everything that determined the content: the stage's settings and the `content` of its input; a shard whose
JSON has the digest that is asked for is done. `content` is the sha256 of the rows' file, so a stage re-runs when its input
really changed and not merely because an earlier stage ran again.

Every stage writes the whole table anew and the next one reads it once: Arrow's own format takes a third of the time that
Parquet does for that. `pyarrow.ipc.open_file` reads it, and pandas, Polars and DuckDB do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.errors import StorageError
from pipeline.storage.atomic import remove, replacing, write_text
from pipeline.text import one_line

# `json.dumps` would make one of these a reject.
_EVIDENCE = json.JSONEncoder(ensure_ascii=False, sort_keys=True, default=str)
# A tenth of a stage's time; the files take a third more than with zstd.
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)


@dataclass(frozen=True, slots=True)
class Reject:
    """Row `index` of a stage's input leaves. `columns`: values that it gained in this stage, e.g. the revised text.

    unanswered: only because a provider failed for a while; the next run asks again.
    """

    index: int
    reason: str
    evidence: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)
    unanswered: bool = False


@dataclass(frozen=True, slots=True)
class StageOutput:
    """What a stage makes of a table: its surviving rows, in order, with the columns that it adds, and the rejects.

    notes: counts of what befell rows without making them rejects, e.g. edits that were dropped.
    """

    rows: pa.Table
    rejects: list[Reject]
    notes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StageFile:
    """The JSON of a shard: enough to plan and to count without reading rows.

    Of the rejected rows, `unanswered` may still pass. notes: as in StageOutput. inputs: short digests of what `digest` is
    made of, by name, to explain a rerun. bytes: of both Arrow files; ledger: the sha256 of the one with the rejects.
    """

    path: Path
    digest: str
    content: str
    rows: int
    rejected: int
    unanswered: int = 0
    notes: dict[str, int] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    bytes: int | None = None
    ledger: str | None = None


def file_path(work: Path, stage: str, shard: int) -> Path:
    return work / stage / f"{shard:05d}.arrow"


def rejects_path(work: Path, stage: str, shard: int) -> Path:
    return work / stage / f"{shard:05d}.rejects.arrow"


def inspect(work: Path, stage: str, shard: int) -> StageFile | None:
    """The facts of a shard; None when it isn't done or its files are gone (a rerun then rebuilds it)."""
    path = file_path(work, stage, shard)
    try:
        facts = json.loads(path.with_suffix(".json").read_text("utf-8"))
        counted = [
            facts["rows"],
            facts["rejected"],
            facts.get("unanswered", 0),
            facts.get("notes", {}),
            facts.get("inputs", {}),
            facts.get("bytes"),
            facts.get("ledger"),
        ]
        file = StageFile(path, facts["digest"], facts["content"], *counted)
        size = _size(work, stage, shard, rejects=file.rejected > 0)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return file if file.bytes in (None, size) else None


def _size(work: Path, stage: str, shard: int, *, rejects: bool) -> int:
    size = file_path(work, stage, shard).stat().st_size
    return size + rejects_path(work, stage, shard).stat().st_size if rejects else size


def inspect_all(work: Path, stage: str, shards: int) -> list[StageFile]:
    """The facts of all shards. Raises StorageError naming one that is missing."""
    found = [inspect(work, stage, shard) for shard in range(shards)]
    for shard, file in enumerate(found):
        if file is None:
            raise StorageError(f"{file_path(work, stage, shard)}: gone or damaged; run again to rebuild it")
    return [file for file in found if file]


def read(file: StageFile, columns: list[str] | None = None) -> pa.Table:
    """The rows, or some columns of them. Raises StorageError when the file isn't the one that was committed."""
    return _read(file.path, file.content, columns)


def read_rejects(work: Path, stage: str, shard: int) -> pa.Table:
    """The rejected rows; none of a shard that isn't there. Raises StorageError when they aren't those that were committed."""
    path, file = rejects_path(work, stage, shard), inspect(work, stage, shard)
    if file is None and (path.exists() or file_path(work, stage, shard).with_suffix(".json").exists()):
        raise _damaged(path, "incomplete, or of another size than was written")
    if file is None or not file.rejected:
        return schema.REJECTED.empty_table()
    return _read(path, file.ledger)


def commit(
    work: Path,
    stage: str,
    shard: int,
    digest: str,
    rows: pa.Table,
    rejects: pa.Table,
    *,
    unanswered: int = 0,
    notes: dict[str, int] | None = None,
    inputs: dict[str, str] | None = None,
) -> StageFile:
    """Write a shard's rows and rejects, then the JSON; when this returns, all are on disk."""
    path = file_path(work, stage, shard)
    # From here on the shard is not done: old facts must not vouch for new files.
    remove(path.with_suffix(".json"))
    rejected = rejects_path(work, stage, shard)
    ledger, more = None, 0
    if rejects.num_rows:
        ledger, more = _write(rejected, rejects)
    else:
        remove(rejected)
    content, size = _write(path, rows)
    counted = rows.num_rows, rejects.num_rows, unanswered, notes or {}, inputs or {}
    file = StageFile(path, digest, content, *counted, size + more, ledger)
    facts = {name: value for name, value in asdict(file).items() if name != "path"}
    write_text(path.with_suffix(".json"), json.dumps(facts, sort_keys=True))
    return file


def reject_table(stage: str, source: pa.Table, rejects: Sequence[Reject]) -> pa.Table:
    """The rejected rows of `source`, with what they had, why they left, and null for what they never got."""
    if not rejects:
        return schema.REJECTED.empty_table()
    taken = source.take(pa.array([reject.index for reject in rejects], pa.int64()))
    columns: dict[str, list[Any]] = {
        "stage": [stage] * len(rejects),
        "reason": [reject.reason for reject in rejects],
        "evidence": [_json(reject.evidence) for reject in rejects],
    }
    arrays = []
    for column in schema.REJECTED:
        if column.name in taken.column_names:
            arrays.append(taken[column.name].cast(column.type))
        else:
            values = columns.get(column.name) or [reject.columns.get(column.name) for reject in rejects]
            arrays.append(pa.chunked_array([values], column.type))
    return pa.table(arrays, schema=schema.REJECTED)


def _json(evidence: dict[str, Any]) -> str:
    """Readable JSON that Arrow can hold: what UTF-8 can't encode (lone surrogates) is escaped."""
    text = _EVIDENCE.encode(evidence)
    return text.encode("utf-8", "backslashreplace").decode()


def _write(path: Path, table: pa.Table) -> tuple[str, int]:
    """Returns the file's sha256 and size."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=_OPTIONS) as writer:
        writer.write_table(table.combine_chunks())
    content = sink.getvalue()
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest(), content.size


def _read(path: Path, sha256: str | None, columns: list[str] | None = None) -> pa.Table:
    try:
        content = path.read_bytes()
        # Arrow has no checksums of its own: a flipped bit reads back as other data.
        if hashlib.sha256(content).hexdigest() != sha256:
            raise _damaged(path, "its bytes are not those that were written")
        return _table(content, columns)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _table(content: bytes, columns: list[str] | None) -> pa.Table:
    names = pa.ipc.open_file(content).schema.names
    wanted = None if columns is None else [names.index(column) for column in columns]
    options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=wanted)
    return pa.ipc.open_file(content, options=options).read_all()


def _damaged(path: Path, reason: object) -> StorageError:
    """The error to raise. The shard's facts are withdrawn, so that the next run makes it again."""
    with suppress(StorageError):
        remove(path.with_name(path.name.partition(".")[0] + ".json"))
    line = one_line(reason, 160)
    return StorageError(f"{path}: damaged ({line}); run again, it will be rebuilt")
