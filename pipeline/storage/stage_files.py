"""The output of a stage for a shard, on disk: rows, rejects, and a small JSON file that makes them count.

    work/<stage>/00000.arrow            the rows that go on
    work/<stage>/00000.rejects.arrow    the rows that leave here, when there are any
    work/<stage>/00000.json             written last: {digest, inputs, content, rows, rejected, …}

`digest` covers everything that determines the output: the stage's settings and the `content` of its input. A shard whose
JSON has the requested digest is done. `content` is the sha256 of the rows' file, so a stage runs again when its input really
changed, and not merely because an earlier stage ran again. Arrow files (`pyarrow.ipc.open_file`) take a third of Parquet's
time to write a whole table and read it once.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.errors import RowReject, StorageError
from pipeline.storage.atomic import remove, replacing, write_text
from pipeline.text import one_line


@dataclass(frozen=True, slots=True)
class Reject:
    """Row `index` leaves, with `columns` that it gained here. unanswered: a provider failed; the next run tries again."""

    index: int
    reason: str
    evidence: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)
    unanswered: bool = False


@dataclass(frozen=True, slots=True)
class StageOutput:
    """The surviving rows, in order, and the rejects. notes: counts of events that reject no row, e.g. dropped edits."""

    rows: pa.Table
    rejects: list[Reject]
    notes: dict[str, int] = field(default_factory=dict)


# The values of the columns that a stage adds to one row, or why the row leaves.
RowResult = dict[str, Any] | RowReject


def row_results(work: Callable[..., dict[str, Any]], *columns: Iterable[Any]) -> list[RowResult]:
    """`work(*values)` for each row's values; a RowReject that it raises is that row's result."""
    results: list[RowResult] = []
    for values in zip(*columns, strict=True):
        try:
            results.append(work(*values))
        except RowReject as reject:
            results.append(reject)
    return results


def collect(rows: pa.Table, added: pa.Schema, results: Sequence[RowResult]) -> StageOutput:
    """Append the columns `added` to the rows whose result is a dict of their values; the others become rejects."""
    values = [result for result in results if not isinstance(result, RowReject)]
    rejects = [
        Reject(index, result.reason, result.evidence, result.columns, result.retryable)
        for index, result in enumerate(results)
        if isinstance(result, RowReject)
    ]
    survivors = rows.filter(pa.array([not isinstance(result, RowReject) for result in results], pa.bool_()))
    for column in added:
        survivors = survivors.append_column(column, pa.array([v[column.name] for v in values], column.type))
    return StageOutput(survivors, rejects)


@dataclass(frozen=True, slots=True)
class StageFile:
    """The JSON of a shard: enough to plan and to count without reading rows.

    unanswered: how many of the rejected rows may still pass. notes: as in StageOutput. inputs: short digests of what `digest`
    covers, by name, to explain a rerun. bytes: size of both Arrow files; ledger: sha256 of the one with the rejects.
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
    """The JSON of a shard; None when it isn't done or its files are gone (a rerun then rebuilds it)."""
    path = file_path(work, stage, shard)
    try:
        facts = json.loads(path.with_suffix(".json").read_text("utf-8"))
        known = [field.name for field in fields(StageFile) if field.name in facts]
        file = StageFile(path, **{name: facts[name] for name in known})
        size = path.stat().st_size
        if file.rejected:
            size += rejects_path(work, stage, shard).stat().st_size
    except (OSError, ValueError, TypeError):
        return None
    return file if file.bytes in (None, size) else None


def inspect_all(work: Path, stage: str, shards: int) -> list[StageFile]:
    """The JSON of all shards. Raises StorageError naming one that is missing."""
    files = [inspect(work, stage, shard) for shard in range(shards)]
    if None in files:
        raise StorageError(f"{file_path(work, stage, files.index(None))}: gone or damaged; run again to rebuild it")
    return [file for file in files if file]


def read(file: StageFile, columns: list[str] | None = None) -> pa.Table:
    """The rows, or some columns of them. Raises StorageError when the file isn't the one that was committed."""
    rows = _read(file.path, file.content)
    return rows if columns is None else rows.select(columns)


def read_rejects(work: Path, stage: str, shard: int) -> pa.Table:
    """The rejected rows; none for a missing shard. Raises StorageError when they aren't those that were committed."""
    path, file = rejects_path(work, stage, shard), inspect(work, stage, shard)
    if file is None and (path.exists() or file_path(work, stage, shard).with_suffix(".json").exists()):
        raise _damaged(path, "incomplete, or of another size than was written")
    if file is None or not file.rejected:
        return schema.REJECTED.empty_table()
    return _read(path, file.ledger)


def forget(work: Path, stage: str, shard: int) -> None:
    """Have the next run do a shard's stage again."""
    remove(file_path(work, stage, shard).with_suffix(".json"))


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
    path, ledger_path = file_path(work, stage, shard), rejects_path(work, stage, shard)
    # From here on the shard is not done: the old JSON must not vouch for new files.
    remove(path.with_suffix(".json"))
    remove(ledger_path)
    ledger, ledger_bytes = _write(ledger_path, rejects) if rejects.num_rows else (None, 0)
    content, size = _write(path, rows)
    file = StageFile(
        path,
        digest,
        content,
        rows.num_rows,
        rejects.num_rows,
        unanswered=unanswered,
        notes=notes or {},
        inputs=inputs or {},
        bytes=size + ledger_bytes,
        ledger=ledger,
    )
    facts = {name: value for name, value in asdict(file).items() if name != "path"}
    write_text(path.with_suffix(".json"), json.dumps(facts, sort_keys=True), private=True)
    return file


def reject_table(stage: str, source: pa.Table, rejects: Sequence[Reject]) -> pa.Table:
    """The rejected rows of `source`, with their values so far and why they left; null for columns that they never got."""
    if not rejects:
        return schema.REJECTED.empty_table()
    names = [name for name in schema.REJECTED.names if name in source.column_names]
    taken = source.select(names).take(pa.array([reject.index for reject in rejects], pa.int64())).to_pylist()
    rows = [
        reject.columns | row | {"stage": stage, "reason": reject.reason, "evidence": _json(reject.evidence)}
        for reject, row in zip(rejects, taken, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=schema.REJECTED)


def _json(evidence: dict[str, Any]) -> str:
    """Readable JSON that Arrow can hold: what UTF-8 can't encode (lone surrogates) is escaped."""
    text = json.dumps(evidence, ensure_ascii=False, sort_keys=True, default=str)
    return text.encode("utf-8", "backslashreplace").decode()


def _write(path: Path, table: pa.Table) -> tuple[str, int]:
    """Returns the file's sha256 and size."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table.combine_chunks())
    content = sink.getvalue()
    with replacing(path, private=True) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest(), content.size


def _read(path: Path, sha256: str | None) -> pa.Table:
    try:
        content = path.read_bytes()
        # Arrow has no checksums of its own: a flipped bit would read as other data.
        if hashlib.sha256(content).hexdigest() != sha256:
            raise _damaged(path, "its bytes are not those that were written")
        return pa.ipc.open_file(content).read_all()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, reason: object) -> StorageError:
    """The error to raise. The shard's JSON is removed, so that the next run rebuilds it."""
    with suppress(StorageError):
        remove(path.with_name(path.name.partition(".")[0] + ".json"))
    return StorageError(f"{path}: damaged ({one_line(reason)}); run again, it will be rebuilt")
