"""Plan: read the source once, cut it into shards, write each as the file that the first stage reads."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import sources
from pipeline.config.settings import CurationConfig
from pipeline.errors import ConfigError, RowReject
from pipeline.run import context, progress
from pipeline.run.inputs import plan_inputs, planned_columns
from pipeline.run.intake import Intake, Rejected
from pipeline.schema import digest, row_id
from pipeline.sources import Adapter, Record, ResolvedSource
from pipeline.stages.table import short_digests
from pipeline.storage import stage_files
from pipeline.storage.atomic import remove, write_text
from pipeline.storage.stage_files import Reject
from pipeline.text import redact_paths

# If none of so many rows is usable, it is the wrong source for the file: it need not be read to its end.
_ALL_BAD_ROWS = 1_000_000
_DOUBLE_EVERY, _LARGEST_SHARD = 128, 32_768
_REPORT_EVERY_S = 10.0
Warn = Callable[[str], None]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run works on. rows: read from the source, rejected ones included; a query counts once per sample.

    replaced_surrogates: characters of the source that UTF-8 can't hold, replaced by U+FFFD.
    """

    shards: int
    rows: int
    replaced_surrogates: int = 0


def plan_shards(
    config: CurationConfig, source: ResolvedSource, adapters: Mapping[str, Adapter], work: Path, warn: Warn
) -> Plan:
    """Write the source shards and plan.json, unless they are there.

    Raises InputError when the source can't be read or no row of it is of the expected shape, ConfigError when a curation
    setting can't be met.
    """
    settings = config.source
    inputs = plan_inputs(config, source.digest)
    determined = digest(*inputs.values())
    wanted = digest(determined, settings.limit)
    if current := _find_current(work, wanted):
        return current
    intake = Intake(settings, adapters)
    records = itertools.islice(sources.records(source, warn=warn), settings.limit)
    samples = config.policy.samples if config.needs_generation else 1
    # An earlier plan is void once its shards are overwritten, even if this one is never finished.
    remove(work / "plan.json")
    shards, rows = _write_shards(config, work, determined, intake, records, samples, warn)
    progress.forget_from(work, shards)
    plan = Plan(shards, rows, intake.replaced)
    named = short_digests(inputs | {"source.limit": settings.limit})
    write_text(work / "plan.json", json.dumps({"digest": wanted, **asdict(plan), "inputs": named}))
    if intake.replaced:
        warn(
            f"{intake.replaced} characters that UTF-8 can't hold (lone surrogates), in {intake.replaced_rows} rows, "
            "were replaced by U+FFFD"
        )
    return plan


def _write_shards(
    config: CurationConfig,
    work: Path,
    determined: str,
    intake: Intake,
    records: Iterator[Record],
    samples: int,
    warn: Warn,
) -> tuple[int, int]:
    """Write all shards of the source; returns how many they are, and their rows. Raises InputError when no row is usable."""
    columns = planned_columns(config)
    shards = rows = 0
    first_bad: RowReject | None = None
    reported = time.monotonic()
    for size in shard_sizes(config.source.shard_rows):
        taken, rejected = _repeat(*intake.take(itertools.islice(records, size)), samples)
        if not taken:
            break
        first_bad = first_bad or (rejected[0][1] if rejected else None)
        _commit(work, shards, digest(determined, rows, len(taken)), taken, rejected, columns)
        shards, rows = shards + 1, rows + len(taken)
        if not intake.understood and rows >= _ALL_BAD_ROWS:
            break
        if time.monotonic() - reported > _REPORT_EVERY_S:
            reported = time.monotonic()
            warn(f"planning: {rows:,} rows read")
    if not intake.understood and first_bad:
        raise sources.all_bad(rows, first_bad, intake.adapters)
    return shards, rows


def shard_sizes(first: int) -> Iterator[int]:
    """Rows of shard 0, 1, 2 …: doubling every 128 shards, so that a hundred million rows make a few thousand shards.

    A shard's rows don't depend on those after it: a longer source or a higher limit only adds shards.
    """
    size = first
    while True:
        yield from itertools.repeat(size, _DOUBLE_EVERY)
        size = max(size, min(2 * size, _LARGEST_SHARD))


def read(work: Path) -> tuple[Plan, str] | None:
    """The plan in a work folder, and its digest; None when none can be read."""
    try:
        facts = json.loads((work / "plan.json").read_text("utf-8"))
        return Plan(int(facts["shards"]), int(facts["rows"]), int(facts["replaced_surrogates"])), str(facts["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _find_current(work: Path, wanted: str) -> Plan | None:
    """The plan of the digest `wanted` with all its shards, if it is there."""
    plan, digest_of_plan = read(work) or (Plan(0, 0), "")
    complete = all(stage_files.inspect(work, "source", shard) for shard in range(plan.shards))
    return plan if digest_of_plan == wanted and complete else None


def open_source(config: CurationConfig, warn: Warn) -> tuple[CurationConfig, ResolvedSource, dict[str, Adapter]]:
    """The source and its adapters, and the configuration with its entry stage, checked. Raises what a run would refuse."""
    source = sources.resolve_source(config.source, warn)
    adapters = sources.open_adapters(config.source, source, warn)
    config = resolve_entry_stage(config, adapters)
    context.check(config)
    return config, source, adapters


def first_rows(
    config: CurationConfig, adapters: Mapping[str, Adapter], records: Iterable[Record], most: int
) -> tuple[list[Row], int, Rejected]:
    """The usable ones of the first `most` records as rows, the number of records, and the rejects.

    Raises InputError when none is of the expected shape.
    """
    intake = Intake(config.source, adapters)
    rows, rejects = intake.take(itertools.islice(records, most))
    if rejects and not intake.understood:
        raise sources.all_bad(len(rows), rejects[0][1], adapters)
    bad = {index for index, _ in rejects}
    return [row for index, row in enumerate(rows) if index not in bad], len(rows), rejects


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


def _repeat(rows: list[Row], rejects: Rejected, samples: int) -> tuple[list[Row], Rejected]:
    """The rows once per sample of the policy, each with an id of its own; rejected ones once."""
    if samples == 1:
        return rows, rejects
    bad = dict(rejects)
    repeated: list[Row] = []
    kept_rejects: Rejected = []
    for index, row in enumerate(rows):
        if index in bad:
            kept_rejects.append((len(repeated), bad[index]))
        repeated.append(row)
        if index not in bad:
            name = row["source"], row["split"], row["messages"]
            repeated += [row | {"id": row_id(*name, n), "sample_index": n} for n in range(1, samples)]
    return repeated, kept_rejects


def _commit(work: Path, shard: int, wanted: str, rows: list[Row], rejected: Rejected, columns: pa.Schema) -> None:
    """Write a shard of the source, unless it is there."""
    shard_progress = progress.StageProgress(work, "source", shard, len(rows))
    done = stage_files.inspect(work, "source", shard)
    if done is None or done.digest != wanted:
        # The error of a source whose rows are all bad has the whole path; the ledger has not.
        rejects = [Reject(index, reject.reason, redact_paths(reject.evidence)) for index, reject in rejected]
        table = pa.Table.from_pylist(rows, columns)
        bad = {reject.index for reject in rejects}
        kept = table.take(pa.array([i for i in range(len(rows)) if i not in bad], pa.int64()))
        stage_files.commit(work, "source", shard, wanted, kept, stage_files.reject_table("source", table, rejects))
    shard_progress.finish(len(rejected))
