"""Plan: read the source once, cut it into shards, write each as the file that the first stage reads.

With `source.target` the source is planned in steps, until enough pairs came out or it ends. A step ends with a whole shard,
and its size follows from how many pairs came out so far, so it is the same in every run. The first step alone determines
thresholds that are quantiles: they stay as they are, however far the run reads on.
"""

import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa

from pipeline import schema, sources
from pipeline.config.settings import CurationConfig
from pipeline.errors import ConfigError, RowReject
from pipeline.run import context, progress
from pipeline.run.intake import Intake, Row, TakenRow
from pipeline.run.record import SOURCE_CONTENT
from pipeline.schema import digest, row_id
from pipeline.sources import Adapter, Record, ResolvedSource, checks
from pipeline.stages.table import BY_NAME, Inputs, short_digests
from pipeline.storage import stage_files
from pipeline.storage.atomic import remove, write_text
from pipeline.storage.stage_files import Reject
from pipeline.text import redact_paths

# Raise when the rows that are planned from the same source change.
PLAN_VERSION = 3
# If none of so many rows is usable, it is the wrong source for the file: it need not be read to its end.
_ALL_BAD_ROWS = 1_000_000
# What an embedded policy answers, and an embedded reviser corrects, in about four minutes of two cores.
EMBEDDED_ROWS = 36
_DOUBLE_EVERY, _LARGEST_SHARD, _REPORT_EVERY_S = 128, 32_768, 10.0
# With a target: so small that a run doesn't work on many more rows than it needs.
_TARGET_SHARD = 32
FIRST_ROWS, _MOST_GROWTH = 64, 4
Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run works on. digest: of all that determines the plan; inputs: short digests of it, by name.

    rows: read from the source, rejected ones included; a query counts once per sample.
    """

    shards: int
    rows: int
    replaced_surrogates: int = 0
    digest: str = field(default="", compare=False)
    inputs: dict[str, str] = field(default_factory=dict, compare=False)


def plan_inputs(config: CurationConfig, source_digest: str) -> Inputs:
    """All that determines the planned rows but the limit. Where files lie does not: what they hold is in two digests."""
    settings = config.source.data_settings()
    samples = config.policy.samples if config.needs_generation else 1
    return {
        "the program": PLAN_VERSION,
        SOURCE_CONTENT: source_digest,
        "source": {name: value for name, value in settings.items() if name not in ("input", "decontaminate")},
        "curation checks": checks.identity(config.source),
        "columns": planned_columns(config).names,
        **({"policy.samples": samples} if samples > 1 else {}),
    }


def planned_columns(config: CurationConfig) -> pa.Schema:
    """The columns of the planned rows: the source's, and for pre-made pairs those of the stages that are left out."""
    left_out = [stage for stage in schema.STAGES[1:-2] if stage not in config.stages]
    kept = [schema.EXTRA] if config.source.keep else []
    return pa.schema([*schema.SOURCE, *kept, *(field for stage in left_out for field in BY_NAME[stage].adds)])


def plan_shards(
    config: CurationConfig,
    source: ResolvedSource,
    adapters: Mapping[str, Adapter],
    work: Path,
    warn: Warn,
    most: int | None = None,
) -> Plan:
    """Write the source shards and plan.json, unless they are there. most: rows of this step of a run with a target.

    Raises InputError without a readable row of the expected shape, ConfigError for a curation setting that can't be met.
    """
    limit = min((rows for rows in (config.source.limit, most) if rows is not None), default=None)
    inputs = plan_inputs(config, source.digest)
    determined = digest(*inputs.values())
    wanted = digest(determined, limit, *(["in steps"] if most else []))
    current = read(work)
    complete = current and all(stage_files.inspect(work, "source", shard) for shard in range(current.shards))
    if current and complete and current.digest == wanted:
        return current
    intake = Intake(config.source, adapters)
    records = itertools.islice(sources.records(source, warn=warn), limit)
    # An earlier plan is void once its shards are overwritten, even if this one is never finished.
    remove(work / "plan.json")
    shards, rows = _write_shards(config, work, determined, intake, records, warn)
    if not intake.understood and intake.first_bad and (most is None or rows < most):
        raise sources.all_bad(rows, intake.first_bad, intake.adapters)
    progress.forget_from(work, shards)
    plan = Plan(shards, rows, intake.replaced, wanted, short_digests(inputs | {"source.limit": config.source.limit}))
    write_text(work / "plan.json", json.dumps(asdict(plan)), private=True)
    if intake.replaced:
        characters = f"{intake.replaced} characters that UTF-8 can't hold (lone surrogates)"
        warn(f"{characters}, in {intake.replaced_rows} rows, were replaced by U+FFFD")
    if intake.thinking_rows:
        warn(
            f"{intake.thinking_rows} rows have thoughts (<think>…</think>) in their answers, which were left out of these"
        )
    return plan


def _write_shards(
    config: CurationConfig, work: Path, determined: str, intake: Intake, records: Iterator[Record], warn: Warn
) -> tuple[int, int]:
    """Write all shards of the source, up to where it proves to be of another shape; returns how many, and their rows."""
    columns = planned_columns(config)
    samples = config.policy.samples if config.needs_generation else 1
    shards = rows = 0
    reported = time.monotonic()
    for size in shard_sizes(config):
        taken = intake.take(itertools.islice(records, size))
        if not taken:
            break
        taken = _repeat(taken, samples)
        _commit(work, shards, digest(determined, rows, len(taken)), taken, columns)
        shards, rows = shards + 1, rows + len(taken)
        if not intake.understood and rows >= _ALL_BAD_ROWS:
            break
        if time.monotonic() - reported > _REPORT_EVERY_S:
            reported = time.monotonic()
            warn(f"planning: {rows:,} rows read")
    return shards, rows


def shard_sizes(config: CurationConfig) -> Iterator[int]:
    """Rows of shard 0, 1, 2 …: doubling every 128 shards, so that a hundred million rows make a few thousand shards."""
    first = min(config.source.shard_rows, _TARGET_SHARD) if config.source.target else config.source.shard_rows
    while True:
        yield from itertools.repeat(first, _DOUBLE_EVERY)
        first = max(first, min(2 * first, _LARGEST_SHARD))


def first_step(config: CurationConfig) -> int | None:
    """The rows to plan first; None for a run without a target."""
    return _whole_shards(config, FIRST_ROWS) if config.source.target else None


def next_step(config: CurationConfig, work: Path, shards: int, rows: int | None) -> int | None:
    """The rows to plan after the first `rows`, which are `shards` shards; None when no more are needed."""
    pairs = sum(file.rows for file in stage_files.inspect_all(work, "label", shards))
    if rows is None or config.source.target is None or pairs >= config.source.target:
        return None
    needed = rows * config.source.target // pairs + 1 if pairs else rows * _MOST_GROWTH
    return _whole_shards(config, min(max(needed, rows + 1), rows * _MOST_GROWTH))


def _whole_shards(config: CurationConfig, rows: int) -> int:
    """The least number of rows of whole shards that is not below `rows`."""
    return next(total for total in itertools.accumulate(shard_sizes(config)) if total >= rows)


def read(work: Path) -> Plan | None:
    """The plan in a work folder; None when none can be read."""
    try:
        facts = json.loads((work / "plan.json").read_text("utf-8"))
        shards, rows, replaced = (int(facts[name]) for name in ("shards", "rows", "replaced_surrogates"))
        return Plan(shards, rows, replaced, str(facts["digest"]), dict(facts.get("inputs", {})))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def open_source(config: CurationConfig, warn: Warn) -> tuple[CurationConfig, ResolvedSource, dict[str, Adapter]]:
    """The source and its adapters, and the configuration with its entry stage, checked. Raises what a run would refuse."""
    source = sources.resolve_source(config.source, warn)
    adapters = sources.open_adapters(config.source, source, warn)
    limit = config.source.limit
    config = resolve_entry_stage(config, adapters)
    if config.source.limit != limit:
        warn(f"embedded models take seconds per row: the first {config.source.limit} rows; --limit takes more")
    context.check(config)
    return config, source, adapters


def first_rows(
    config: CurationConfig, adapters: Mapping[str, Adapter], records: Iterable[Record], most: int
) -> tuple[list[Row], int, list[RowReject]]:
    """Usable rows of the first `most` records, number of records, rejects. InputError when none is of the expected shape."""
    intake = Intake(config.source, adapters)
    taken = intake.take(itertools.islice(records, most))
    rejects = [reject for _, reject in taken if reject]
    if intake.first_bad and not intake.understood:
        raise sources.all_bad(len(taken), intake.first_bad, adapters)
    return [row for row, reject in taken if not reject], len(taken), rejects


def resolve_entry_stage(config: CurationConfig, adapters: Mapping[str, Adapter]) -> CurationConfig:
    """`config` with `source.enters_at` decided: score or filter for pre-made pairs, else sample; with what depends on it.

    Raises ConfigError if only some sources have pairs.
    """
    wanted = config.source.enters_at
    lacking = [name for name, adapter in adapters.items() if not adapter.gives_pairs]
    if lacking and (wanted in ("score", "filter") or (wanted == "auto" and len(lacking) < len(adapters))):
        why = f"rows of {', '.join(lacking)} have no initial and revised answers to enter at that stage with"
        hint = "run the sources apart, or set source.enters_at=sample to have all answers written"
        if len(adapters) == 1 and adapters[lacking[0]].is_generic:
            fields = " ".join(f"source.fields.{part}=NAME" for part in ("prompt", "initial", "revised"))
            hint = f"name their fields: --set {fields}; without enters_at the run says what it finds"
        raise ConfigError(f"source.enters_at: {why}; {hint}")
    stage = wanted
    if wanted == "auto":
        scored = all(adapter.scored for adapter in adapters.values())
        stage = "sample" if lacking else "score" if scored else "filter"
    return _with_defaults(config.model_copy(update={"source": config.source.model_copy(update={"enters_at": stage})}))


def _with_defaults(config: CurationConfig) -> CurationConfig:
    """The settings whose defaults depend on the models: an embedded policy is slow, and a judge needs no help to select."""
    source, selection = config.source, config.selection
    if config.needs_generation and config.policy.model.startswith("local/") and source.limit == source.target is None:
        source = source.model_copy(update={"limit": EMBEDDED_ROWS})
    defaults = {"eta1": None, "eta2": None} if config.judges_itself else {"eta1": "q0.5", "eta2": "q0.3"}
    unset = {eta: limit for eta, limit in defaults.items() if getattr(selection, eta) == "auto"}
    return config.model_copy(update={"source": source, "selection": selection.model_copy(update=unset)})


def _repeat(taken: list[TakenRow], samples: int) -> list[TakenRow]:
    """The rows once per sample of the policy, each with an id of its own; rejected ones once."""

    def sample(row: Row, number: int) -> Row:
        name = row_id(row["source"], row["split"], row["messages"], number)
        return row | {"id": name, "sample_index": number}

    return [(sample(row, n) if n else row, reject) for row, reject in taken for n in range(1 if reject else samples)]


def _commit(work: Path, shard: int, wanted: str, taken: list[TakenRow], columns: pa.Schema) -> None:
    """Write a shard of the source, unless it is there."""
    shard_progress = progress.StageProgress(work, "source", shard, len(taken))
    # The error of a source whose rows are all bad has the whole path; the ledger has not.
    rejects = [
        Reject(index, reject.reason, redact_paths(reject.evidence)) for index, (_, reject) in enumerate(taken) if reject
    ]
    done = stage_files.inspect(work, "source", shard)
    if done is None or done.digest != wanted:
        table = pa.Table.from_pylist([row for row, _ in taken], columns)
        kept = table.filter(pa.array([not reject for _, reject in taken]))
        stage_files.commit(work, "source", shard, wanted, kept, stage_files.reject_table("source", table, rejects))
    shard_progress.finish(len(rejects))
