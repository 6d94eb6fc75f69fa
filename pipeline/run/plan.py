"""Plan: read the source once, cut it into shards, write each as the file that the first stage reads."""

from __future__ import annotations

import itertools
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import schema, sources
from pipeline.config.settings import CurationConfig
from pipeline.errors import ConfigError, RowReject
from pipeline.run import progress
from pipeline.run.inputs import plan_inputs, planned_columns
from pipeline.run.intake import Intake, Rejected, repeated
from pipeline.schema import digest
from pipeline.sources import Adapter, ResolvedSource
from pipeline.sources.row import Message
from pipeline.stages.table import short_digests
from pipeline.storage import stage_files
from pipeline.storage.atomic import remove, write_text
from pipeline.storage.stage_files import Reject
from pipeline.text import redact_paths

# If none of so many rows is usable, it is the wrong source for the file: it need not be read to its end.
_ALL_BAD_ROWS = 1_000_000
_DOUBLE_EVERY, _LARGEST_SHARD = 128, 32_768
_TELL_EVERY_S = 10.0
Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run works on. rows: read from the source, rejected ones included; a query counts once a sample.

    replaced_surrogates: characters of the source that UTF-8 can't hold, replaced by U+FFFD.
    """

    shards: int
    rows: int
    replaced_surrogates: int = 0


def plan_shards(config: CurationConfig, source: ResolvedSource, work: Path, warn: Warn) -> Plan:
    """Write the source shards and plan.json; a plan that stands is read, not made again.

    Raises InputError when the source can't be read or no row of it is of the expected shape, ConfigError when a curation
    setting can't be met.
    """
    settings = config.source
    inputs = plan_inputs(config, source.digest)
    determined = digest(*inputs.values())
    wanted = digest(determined, settings.limit)
    standing = _standing(work, wanted)
    if standing:
        return standing
    adapters = sources.open_adapters(settings, source, warn)
    intake = Intake(settings, adapters)
    records = itertools.islice(sources.records(source, warn=warn), settings.limit)
    told = time.monotonic()
    # Another plan doesn't stand any more once its shards are written over, also if this one is never finished.
    remove(work / "plan.json")
    samples = config.policy.samples if config.needs_generation else 1
    with _Writer(work, determined, planned_columns(config)) as written:
        for size in shard_sizes(settings.shard_rows):
            shard = list(itertools.islice(records, size))
            if not shard:
                break
            written.add(*repeated(*intake.take(shard), samples))
            if not intake.understood and written.rows >= _ALL_BAD_ROWS:
                break
            if time.monotonic() - told > _TELL_EVERY_S:
                told = time.monotonic()
                warn(f"planning: {written.rows:,} rows read")
    if not intake.understood and written.first_bad:
        raise sources.all_bad(written.rows, written.first_bad, adapters)
    progress.forget_from(work, written.shards)
    plan = Plan(written.shards, written.rows, intake.replaced)
    named = short_digests(inputs | {"source.limit": settings.limit})
    write_text(work / "plan.json", json.dumps({"digest": wanted, **asdict(plan), "inputs": named}))
    if intake.replaced:
        warn(
            f"{intake.replaced} characters that UTF-8 can't hold (lone surrogates), in {intake.replaced_rows} rows, "
            "were replaced by U+FFFD"
        )
    return plan


def shard_sizes(first: int) -> Iterator[int]:
    """Rows of shard 0, 1, 2 …: doubling every 128 shards, so that a hundred million rows make a few thousand shards.

    A shard's place depends on nothing that lies behind it: a longer source or a higher limit only adds shards.
    """
    size = first
    while True:
        yield from itertools.repeat(size, _DOUBLE_EVERY)
        size = max(size, min(2 * size, _LARGEST_SHARD))


def read(work: Path) -> tuple[Plan, str] | None:
    """The plan that was last finished in a work folder, and its digest; None when there is none that can be read."""
    try:
        facts = json.loads((work / "plan.json").read_text("utf-8"))
        return Plan(int(facts["shards"]), int(facts["rows"]), int(facts["replaced_surrogates"])), str(facts["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _standing(work: Path, wanted: str) -> Plan | None:
    plan, found = read(work) or (Plan(0, 0), "")
    complete = all(stage_files.inspect(work, "source", shard) for shard in range(plan.shards))
    return plan if found == wanted and complete else None


def resolve_entry_stage(config: CurationConfig, adapters: Mapping[str, Adapter]) -> CurationConfig:
    """The configuration with `source.enters_at` decided: the filter stage where the sources have pre-made pairs, else sample.

    Raises ConfigError when rows that must enter at the filter stage don't all have both answers.
    """
    wanted = config.source.enters_at
    lacking = [name for name, adapter in adapters.items() if not adapter.gives_pairs]
    if lacking and (wanted == "filter" or (wanted == "auto" and len(lacking) < len(adapters))):
        raise ConfigError(
            f"source.enters_at: rows of {', '.join(lacking)} have no initial and revised answers to enter at the filter "
            "stage with; run the sources apart, or set source.enters_at=sample to have all answers written"
        )
    stage = "sample" if lacking or wanted == "sample" else "filter"
    return config.model_copy(update={"source": config.source.model_copy(update={"enters_at": stage})})


class _Writer:
    """Commits shards in a thread of its own, at most two waiting: the disk need not be waited for while rows are read.

    shards, rows: added so far; first_bad: the first reject of all.
    """

    def __init__(self, work: Path, determined: str, columns: pa.Schema) -> None:
        self.shards = self.rows = 0
        self.first_bad: RowReject | None = None
        self._work, self._determined, self._columns = work, determined, columns
        self._thread = ThreadPoolExecutor(1, "plan")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown()
        if kind is None:
            self._wait(0)

    def add(self, rows: list[dict[str, Any]], rejected: Rejected) -> None:
        """Commit one more shard, now or soon; raises what an earlier one raised."""
        wanted = digest(self._determined, self.rows, len(rows))
        # The error of a source of which all is bad has the whole path.
        rejects = [Reject(index, reject.reason, redact_paths(reject.evidence)) for index, reject in rejected]
        if rejected and not self.first_bad:
            self.first_bad = rejected[0][1]
        self._waiting.append(
            self._thread.submit(_commit, self._work, self.shards, wanted, rows, rejects, self._columns)
        )
        self.shards, self.rows = self.shards + 1, self.rows + len(rows)
        self._wait(2)

    def _wait(self, most: int) -> None:
        while len(self._waiting) > most:
            self._waiting.popleft().result()


def _commit(
    work: Path, shard: int, wanted: str, rows: list[dict[str, Any]], rejects: list[Reject], columns: pa.Schema
) -> None:
    told = progress.StageProgress(work, "source", shard, len(rows))
    done = stage_files.inspect(work, "source", shard)
    if done is None or done.digest != wanted:
        table = _table(rows, columns)
        bad = {reject.index for reject in rejects}
        kept = table.take(pa.array([i for i in range(len(rows)) if i not in bad], pa.int64()))
        stage_files.commit(work, "source", shard, wanted, kept, stage_files.reject_table("source", table, rejects))
    told.finish(len(rejects))


def _table(rows: list[dict[str, Any]], columns: pa.Schema) -> pa.Table:
    """`pa.Table.from_pylist(rows, columns)` in a third of its time: conversations are what takes it long."""
    values = {field: [row.get(field.name) for row in rows] for field in columns}
    arrays = [
        _conversations(value) if field.type == schema.MESSAGES else pa.array(value, field.type)
        for field, value in values.items()
    ]
    return pa.table(arrays, schema=columns)


def _conversations(values: list[list[Message] | None]) -> pa.Array:
    turns = [turn for value in values if value for turn in value]
    parts = [pa.array([turn[name] for turn in turns], pa.string()) for name in ("role", "content")]
    offsets = [0, *itertools.accumulate(len(value or ()) for value in values)]
    missing = pa.array([value is None for value in values], pa.bool_())
    struct = pa.StructArray.from_arrays(parts, ["role", "content"])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), struct, type=schema.MESSAGES, mask=missing)
