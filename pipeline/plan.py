"""Plan: read the source once, cut it into shards, write each as the file that the first stage reads."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import progress, schema, sources
from pipeline.config import CurationConfig, SourceSettings, digest
from pipeline.errors import InputError, RowReject
from pipeline.sources import Adapter, Record, ResolvedSource
from pipeline.storage import stagefile
from pipeline.storage.atomic import write_text
from pipeline.storage.stagefile import Reject

# Raise when the rows made from the same source change.
CODE = 1
# A generic source's fields are guessed from at most so many rows.
_GUESS_ROWS = 1000
Warn = Callable[[str], None]


def row_id(source: str, split: str, messages: list[dict[str, str]], sample_index: int) -> str:
    """Stable name of a row: 16 hex digits over source, split, query and sample index."""
    text = json.dumps([source, split, messages, sample_index], ensure_ascii=True, sort_keys=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run works on. rows: read from the source, rejected ones included."""

    shards: int
    rows: int


def plan_shards(config: CurationConfig, source: ResolvedSource, work: Path, warn: Warn) -> Plan:
    """Write the source shards and plan.json; a plan that stands is read, not made again.

    Raises InputError when the source can't be read or no row of it is of the expected shape.
    """
    settings = config.source
    wanted = digest(CODE, source.digest, settings.name, settings.fields, settings.shard_rows, settings.limit)
    standing = _standing(work, wanted)
    if standing:
        return standing
    adapter = open_adapter(settings, source, warn)
    records = itertools.islice(sources.records(source, warn=warn), settings.limit)
    seen: set[str] = set()
    first_bad: RowReject | None = None
    good, total, shards = 0, 0, 0
    for shard in iter(lambda: list(itertools.islice(records, settings.shard_rows)), []):
        rows, rejects = _parse(settings.name, adapter, shard, seen)
        if rejects and not first_bad:
            first_bad = rejects[0][1]
        wanted_shard = digest(CODE, source.digest, settings.name, settings.fields, total, len(shard))
        _commit(work, shards, wanted_shard, rows, [Reject(i, r.reason, r.evidence) for i, r in rejects])
        good, total, shards = good + len(rows) - len(rejects), total + len(shard), shards + 1
    if not good and first_bad:
        raise InputError(_all_bad(total, first_bad, adapter.expected))
    progress.forget_from(work, shards)
    write_text(work / "plan.json", json.dumps({"digest": wanted, "shards": shards, "rows": total}))
    return Plan(shards, total)


def _standing(work: Path, wanted: str) -> Plan | None:
    try:
        facts = json.loads((work / "plan.json").read_text("utf-8"))
        plan = Plan(int(facts["shards"]), int(facts["rows"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    complete = all(stagefile.inspect(work, "source", shard) for shard in range(plan.shards))
    return plan if facts["digest"] == wanted and complete else None


def open_adapter(settings: SourceSettings, source: ResolvedSource, warn: Warn) -> Adapter:
    """The adapter of a source; a generic one bound to its fields, guessed from the first rows if not given."""
    first = itertools.islice(sources.records(source), min(settings.limit or _GUESS_ROWS, _GUESS_ROWS))
    adapter, told = sources.bind(
        sources.get(settings.name), settings.fields or {}, (r.value for r in first if isinstance(r.value, dict))
    )
    if told:
        warn(told)
    return adapter


def _parse(
    name: str, adapter: Adapter, shard: list[Record], seen: set[str]
) -> tuple[list[dict[str, Any]], list[tuple[int, RowReject]]]:
    """All rows of a shard, and which of them are rejected. Adds the ids of the good ones to `seen`."""
    rows: list[dict[str, Any]] = []
    rejects: list[tuple[int, RowReject]] = []
    for index, record in enumerate(shard):
        row: dict[str, Any] = {
            "source": name,
            "split": record.split,
            "source_row": record.source_row,
            "sample_index": 0,
        }
        try:
            if isinstance(record.value, RowReject):
                raise record.value
            parsed = adapter.parse(record.value)
            row |= {"messages": parsed.messages, "reference": parsed.reference}
            row["id"] = row_id(name, record.split, parsed.messages, 0)
            if row["id"] in seen:
                raise RowReject("duplicate_query")
            seen.add(row["id"])
        except RowReject as reject:
            reject.evidence.setdefault("where", record.where)
            rejects.append((index, reject))
            # Rows that never had a query still need a name of their own in the ledger.
            row.setdefault("id", row_id(name, record.split, [], record.source_row))
        rows.append(row)
    return rows, rejects


def _commit(work: Path, shard: int, wanted: str, rows: list[dict[str, Any]], rejects: list[Reject]) -> None:
    told = progress.StageProgress(work, "source", shard, len(rows))
    done = stagefile.inspect(work, "source", shard)
    if done is None or done.digest != wanted:
        table = pa.Table.from_pylist(rows, schema=schema.SOURCE)
        bad = {reject.index for reject in rejects}
        kept = table.take(pa.array([i for i in range(len(rows)) if i not in bad], pa.int64()))
        stagefile.commit(work, "source", shard, wanted, kept, stagefile.reject_table("source", table, rejects))
    told.finish(len(rejects))


def _all_bad(total: int, first: RowReject, expected: str) -> str:
    evidence = first.evidence
    got = f", got {evidence['got']}" if "got" in evidence else ""
    count = f"none of {total} rows is usable" if total > 1 else "its only row is not usable"
    return f"{evidence.get('where')}: {first.reason}: expected {evidence.get('expected', expected)}{got}; {count}"
