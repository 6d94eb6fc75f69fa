"""The state of an output folder, and what the same command would do in it: behind `figa status`.

Reads facts and scores, never texts, and calls no model; works on folders that are half done, damaged or in use.
"""

import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import __version__, schema, sources
from pipeline.config.settings import CurationConfig
from pipeline.dataset import manifest
from pipeline.errors import ConfigError, CurationError, StorageError, UsageError
from pipeline.models.batch.ledger import unfinished
from pipeline.models.journal import dollars, totals
from pipeline.run import plan, record
from pipeline.run import publish as publication
from pipeline.run.context import LightContext
from pipeline.run.shards import resolve_thresholds
from pipeline.schema import digest
from pipeline.stages.table import BY_NAME, UNKNOWN, Inputs, Stage, short_digests
from pipeline.storage import stage_files
from pipeline.storage.location import journal_of
from pipeline.storage.lock import is_alive
from pipeline.storage.stage_files import StageFile


@dataclass(slots=True)
class StageState:
    """Shards of one stage. stale: of other inputs, whose names, with the number of shards, are `why`."""

    stage: str
    done: int = 0
    damaged: int = 0
    stale: int = 0
    rows: int = 0
    rejected: int = 0
    unanswered: int = 0
    why: dict[str, int] = field(default_factory=dict)

    def steps(self, shards: int, *, last: bool) -> list[str]:
        """What a rerun with so many shards would do in this stage."""
        steps = []
        if (missing := shards - self.done - self.stale) > 0:
            damaged = f", {self.damaged} of which are damaged" if self.damaged else ""
            steps.append(f"{self.stage}: make {_shards(missing)} of {shards}{damaged}")
        if self.stale:
            follows = "" if last else ", and what follows from it"
            steps.append(f"{self.stage}: make {_shards(self.stale)} again: {_changed(list(self.why))}{follows}")
        if self.unanswered:
            steps.append(f"{self.stage}: call again for {self.unanswered} rows that a provider left unanswered")
        return steps


@dataclass(slots=True)
class State:
    """An output folder. shards: None without a plan; published, publication, made_by: by the manifest.

    stands: the manifest is that of the last run, its files at their sizes. batches: requests still at a provider. changed,
    replan: inputs that differ from those of the last run, of the plan. refused: why a rerun would not even begin.
    """

    out: str
    shards: int | None = None
    stages: list[StageState] = field(default_factory=list)
    published: dict[str, int] | None = None
    publication: int | None = None
    made_by: str = "build"
    stands: bool = False
    calls: dict[str, int] = field(default_factory=dict)
    cost_usd: float = 0.0
    batches: int = 0
    owner: str | None = None
    changed: list[str] = field(default_factory=list)
    replan: list[str] = field(default_factory=list)
    refused: str | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def rerun(self) -> list[str]:
        """What the same command would do, one line per step; empty when nothing."""
        if self.refused:
            return [f"end at once: {self.refused}"]
        unanswered = any(stage.unanswered for stage in self.stages)
        if self.stands and not (self.changed or self.replan or unanswered):
            return []
        why = _changed(list(dict.fromkeys([*self.replan, *self.changed])))
        if self.shards is None:
            lacking = "work/ holds no plan" if self.published else "there is no plan yet"
            lost = self.published and not self.calls
            paid = "; models are called again, as there is no journal of responses" if lost else ""
            return [f"plan the source and run every stage: {why or lacking}{paid}"]
        steps = [f"source: plan again, keeping shards of the same rows: {_changed(self.replan)}"] if self.replan else []
        for stage in self.stages:
            steps += stage.steps(self.shards, last=stage is self.stages[-1])
        return steps or [f"publish: all shards are done{why and '; '}{why}"]


def _shards(count: int) -> str:
    return f"{count} shard{'' if count == 1 else 's'}"


def _changed(names: list[str]) -> str:
    return ", ".join(f"{name} changed" for name in names)


def folder_state(out: Path, wanted: CurationConfig | None = None, *, rerun: bool = True) -> State:
    """The state of an output folder. wanted: the settings that a rerun would have; None: those of the last run.

    rerun: whether to find out what a rerun would do, which reads the source's files and the tokenizer's.
    """
    work, state, last_run = out / "work", State(str(out)), record.recall(out)
    content = _read_manifest(out, state)
    if planned := plan.read(work):
        state.shards = planned.shards
    elif (work / "plan.json").exists():
        state.problems.append(f"{work / 'plan.json'}: damaged; a run that needs it plans again")
    if state.made_by == "build":
        last = last_run.get("settings") or (content or {}).get("settings") or {}
        if context := _rerun_context(last, wanted, out, state) if rerun else None:
            _compare_run(context, last_run, content, state)
        if context and planned:
            inputs = plan.plan_inputs(context.config, context.source_digest)
            # A manifest's settings don't say the limit.
            inputs |= {"source.limit": context.config.source.limit} if "limit" in last.get("source", ()) else {}
            state.replan = _differences(short_digests(inputs), planned.inputs)
        _read_stages(work, _stages(work, content, context.config if context else None), context, state)
    if content:
        state.stands &= last_run.get("run_digest", content["run_digest"]) == content["run_digest"]
    _read_money(out, state)
    state.owner = _owner(work / "run.owner")
    return state


def _rerun_context(last: dict[str, Any], wanted: CurationConfig | None, out: Path, state: State) -> LightContext | None:
    """A context with the settings `wanted`, else with those of the `last` run; None when neither is known."""
    if not (wanted or last):
        return None
    try:
        config = wanted or record.rerun_of(last, [], out)
    except ConfigError as error:
        state.problems.append(str(error))
        return None
    source_digest: Any = UNKNOWN
    with suppress(OSError, ValueError, CurationError):
        if config.source.input is not None and Path(config.source.input).exists():
            source = sources.resolve_source(config.source, lambda message: None)
            adapters = sources.open_adapters(config.source, source, lambda message: None)
            config = plan.resolve_entry_stage(config, adapters)
            source_digest = source.digest
    if config.source.enters_at == "auto":
        entry = last.get("source", {}).get("enters_at", "auto")
        config = config.model_copy(update={"source": config.source.model_copy(update={"enters_at": entry})})
    return LightContext(config, source_digest)


def _compare_run(context: LightContext, last_run: dict[str, Any], content: dict[str, Any] | None, state: State) -> None:
    known = last_run.get("inputs") or short_digests({"settings": (content or {}).get("settings", {})})
    inputs = record.run_inputs(context.config, context.source_digest)
    state.changed = _differences(short_digests(inputs), known)
    if content and content.get("version") != __version__:
        state.changed.append("the program's version")
    if content and UNKNOWN not in inputs.values():
        state.stands &= bool(state.changed) or digest(*inputs.values()) == content["run_digest"]


def _differences(inputs: dict[str, str], known: dict[str, str]) -> list[str]:
    """Names of the inputs whose short digests differ from those `known`."""
    return [name for name, value in inputs.items() if known.get(name, value) != value]


def _changed_in_shard(facts: StageFile, stage: Stage, inputs: Inputs, source: StageFile) -> list[str]:
    """Names of the inputs that a shard was not made from; none when its digest is the one that a run would want."""
    known = UNKNOWN not in inputs.values()
    if known and facts.digest == digest(stage.digest(inputs), source.content):
        return []
    changed = _differences(stage.short_digests(inputs, source.content), facts.inputs)
    return changed or (["the stage's inputs"] if known else [])


def _read_manifest(out: Path, state: State) -> dict[str, Any] | None:
    """The manifest, if it can be used; what is wrong with it, and with what it names, is added to the problems."""
    try:
        record.check_not_newer(out, manifest.load(out, sealed=False))
    except UsageError as error:
        state.refused = str(error)
        state.problems.append("a newer version of the program wrote here: this one shows what it understands")
    except StorageError:
        pass
    try:
        content = manifest.load(out)
        if content is None:
            return None
        state.published, state.publication = content["rows"], content.get("publication", 1)
        state.made_by = publication.written_by(content)
        entries = [*content["files"], *content["rejected_files"]]
        sizes = {out / entry["path"]: entry["bytes"] for entry in entries}
        wrong = [path for path, size in sizes.items() if not path.is_file() or path.stat().st_size != size]
        state.problems += [f"{path}: missing, or not of the size that the manifest says" for path in wrong]
        state.stands = not wrong and bool(content["run_digest"])
        return content
    except StorageError as error:
        state.problems.append(str(error))
    except (KeyError, TypeError) as error:
        state.problems.append(f"{out / manifest.NAME}: damaged: it lacks {error}")
    state.published = None
    return None


def _stages(work: Path, content: dict[str, Any] | None, wanted: CurationConfig | None) -> list[str]:
    if content:
        return [step["stage"] for step in content["funnel"]]
    if wanted and wanted.source.enters_at != "auto":
        return list(wanted.stages)
    # Pre-made pairs skip the first stages; the last two are in every run.
    there = [name for name in schema.STAGES if (work / name).is_dir() or name in schema.STAGES[-2:]]
    return list(schema.STAGES) if "sample" in there or there[0] != "source" else there


def _read_stages(work: Path, stages: list[str], context: LightContext | None, state: State) -> None:
    thresholds: Any = UNKNOWN
    for previous, stage in zip([None, *stages], stages, strict=False):
        inputs = BY_NAME[stage].inputs(context, thresholds) if context and stage in BY_NAME else {}
        state.stages.append(_read_stage(work, stage, previous, state, inputs))
        # With all scores as a rerun would have them, its thresholds are known.
        if context and state.shards and stage == "score" and state.stages[-1].done == state.shards:
            thresholds = resolve_thresholds(context.config, work, state.shards)


def _read_stage(work: Path, stage: str, previous: str | None, state: State, inputs: Inputs) -> StageState:
    """inputs: what determines the stage's output; empty where that is not known, and for the source."""
    result = StageState(stage)
    damaged: list[str] = []
    written = sum(path.stem.isdigit() for path in (work / stage).glob("*.json"))
    for number in range(written if state.shards is None else state.shards):
        facts = stage_files.inspect(work, stage, number)
        if facts is None:
            path = stage_files.file_path(work, stage, number)
            if path.exists() or path.with_suffix(".json").exists():
                damaged.append(path.name)
            continue
        result.rows += facts.rows
        result.rejected += facts.rejected
        result.unanswered += facts.unanswered
        source = stage_files.inspect(work, previous, number) if previous else None
        changed = _changed_in_shard(facts, BY_NAME[stage], inputs, source) if inputs and source else []
        result.stale += bool(changed)
        result.done += not changed
        result.why |= {name: result.why.get(name, 0) + 1 for name in changed}
    if damaged:
        names = ", ".join(damaged[:3]) + (f" and {len(damaged) - 3} more" if len(damaged) > 3 else "")
        state.problems.append(f"{work / stage}: {names}: damaged or incomplete; a run that needs them rebuilds them")
    result.damaged = len(damaged)
    return result


def _read_money(out: Path, state: State) -> None:
    """Calls and US dollars from the journal, opened for reading only: also while a run writes it."""
    state.batches = sum(batch.size for batch in unfinished(out / "work"))
    path = journal_of(out)
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            sums = totals(db)
            state.calls = {one.stage: one.calls for one in sums if one.kind == "answers"}
            state.cost_usd = round(dollars(sums), 6)
    except sqlite3.Error as error:
        state.problems.append(f"{path}: the journal can't be read ({error}); a run sets a damaged one aside")


def _owner(path: Path) -> str | None:
    """Who is at work in the folder, and whether that is still so, as far as this machine can tell."""
    if not path.is_file():
        return None
    text = path.read_text("utf-8", "replace").partition("\n")[0]
    alive = is_alive(text)
    if alive is None:
        return f"{text}, if that still runs"
    return text if alive else f"nobody: {text} ended without tidying up, and the next run takes over"
