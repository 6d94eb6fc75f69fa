"""The state of an output folder, and what the same command would do in it: behind `figa status`.

Reads facts, never rows, and asks no model; works on folders that are half done, broken or in use.
"""

from __future__ import annotations

import json
import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pipeline import __version__, rewards, schema
from pipeline.config.settings import CurationConfig, digest
from pipeline.curate import resolve_source
from pipeline.dataset import manifest
from pipeline.errors import ConfigError, CurationError, StorageError, UsageError
from pipeline.labels.loading import open_tokenizer
from pipeline.models.local import catalog
from pipeline.models.local.download import cache_folder
from pipeline.run import publish as publication
from pipeline.run import record
from pipeline.run.context import Context, tokenizer_settings
from pipeline.run.inputs import plan_inputs, run_inputs
from pipeline.run.plan import open_adapters, resolve_entry_stage
from pipeline.run.shards import resolve_thresholds
from pipeline.stages.table import BY_NAME, UNKNOWN, Stage, short_digests
from pipeline.storage import stage_files
from pipeline.storage.stage_files import StageFile

if TYPE_CHECKING:
    from pipeline.models.chat import ChatModel


@dataclass(slots=True)
class StageState:
    """Shards of one stage. damaged: facts or files that can't be used; stale: made from another input or other settings.

    why: names of the settings that differ from those of the stale shards, with the number of shards.
    """

    stage: str
    done: int = 0
    damaged: int = 0
    stale: int = 0
    rows: int = 0
    rejected: int = 0
    unanswered: int = 0
    why: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class State:
    """shards: as planned; None when there is no plan. published: rows by the manifest; publication: its number; made_by: the
    command that it is of. calls, cost_usd: by the journal; batches: requests still at a provider. changed: settings and the
    like that differ from those of the last run; replan: from those of the plan. stands: a manifest of the last run that names
    sound files. refused: why a rerun would not even begin.
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
        """What the same command would do, a line each; empty when nothing."""
        if self.refused:
            return [f"end at once: {self.refused}"]
        unanswered = any(stage.unanswered for stage in self.stages)
        if self.stands and not (self.changed or self.replan or unanswered):
            return []
        why = _changed(list(dict.fromkeys([*self.replan, *self.changed])))
        if self.shards is None:
            lacking = "work/ holds no plan" if self.published else "there is no plan yet"
            paid = (
                ""
                if self.calls or not self.published
                else "; models are asked again, as there is no journal of answers"
            )
            return [f"plan the source and run every stage: {why or lacking}{paid}"]
        told = (
            [f"source: plan anew, keeping what is made of the same rows: {_changed(self.replan)}"]
            if self.replan
            else []
        )
        for stage in self.stages:
            missing = self.shards - stage.done - stage.stale
            if missing > 0:
                damaged = f", {stage.damaged} of which are damaged" if stage.damaged else ""
                told.append(f"{stage.stage}: make {_shards(missing)} of {self.shards}{damaged}")
            if stage.stale:
                follows = "" if stage is self.stages[-1] else ", and what follows from it"
                told.append(f"{stage.stage}: make {_shards(stage.stale)} again: {_changed(list(stage.why))}{follows}")
            if stage.unanswered:
                told.append(f"{stage.stage}: ask again for {stage.unanswered} rows that a provider left unanswered")
        if told:
            return told
        return [f"publish: all shards are done{why and '; '}{why}"]


def _shards(count: int) -> str:
    return f"{count} shard{'' if count == 1 else 's'}"


def _changed(names: list[str]) -> str:
    return ", ".join(f"{name} changed" for name in names)


def state(out: Path, wanted: CurationConfig | None = None) -> State:
    """The state of an output folder. wanted: the settings that a rerun would have; None: those of the last run."""
    work, found, last_run = out / "work", State(str(out)), record.recall(out)
    content = _manifest(out, found)
    last = last_run.get("settings") or (content or {}).get("settings")
    if wanted is None and last and found.made_by == "build":
        wanted = _of_last_run(last, out, found)
    found.stands &= content is not None and last_run.get("run_digest", content["run_digest"]) == content["run_digest"]
    context = None
    if wanted and found.made_by == "build":
        source, context = _light_context(wanted, last)
        _compare_run(context.config, source, last_run, content, found)
        _compare_plan(work, context.config, source, limited="limit" in (last or {}).get("source", ()), found=found)
    else:
        _read_plan(work, found)
    stages = _stages(work, content, wanted) if found.made_by == "build" else []
    thresholds: Any = UNKNOWN
    for previous, stage in zip([None, *stages], stages, strict=False):
        inputs = BY_NAME[stage].inputs(context, thresholds) if context and stage in BY_NAME else {}
        found.stages.append(_stage(work, stage, previous, found, inputs))
        if context and stage == "score" and found.stages[-1].done == found.shards:
            thresholds = resolve_thresholds(context.config, work, found.shards)
    _money(work, found)
    found.owner = _owner(work / "run.owner")
    return found


class _LightContext(Context):
    """A context that loads no model and asks no server: what it would take that for is UNKNOWN."""

    @cached_property
    def reward_digest(self) -> Any:
        settings = self.config.reward
        if not self.config.needs_rewards:
            return None
        if any(rewards.kind(member.model) == "hf" for member in rewards.members(settings)):
            return UNKNOWN
        # A judge's digest is made of its name and prompt; the model behind it is only kept.
        return rewards.load(settings, lambda member: cast("ChatModel", None)).digest

    @cached_property
    def tokenizer_fingerprint(self) -> Any:
        name, settings = tokenizer_settings(self.config)
        embedded = name.removeprefix("local/")
        here = (cache_folder() / catalog.get(embedded).filename).is_file() if embedded != name else Path(name).is_dir()
        return open_tokenizer(name, settings).fingerprint if here else UNKNOWN


def _light_context(wanted: CurationConfig, last: dict[str, Any] | None) -> tuple[Any, _LightContext]:
    """The digest of the source, UNKNOWN unless it is on this machine; and the context of what a rerun would do."""
    source, entry = UNKNOWN, (last or {}).get("source", {}).get("enters_at", "auto")
    if wanted.source.input is not None and _exists(wanted.source.input):
        with suppress(OSError, ValueError, CurationError):
            resolved = resolve_source(wanted, lambda message: None)
            wanted = resolve_entry_stage(wanted, open_adapters(wanted.source, resolved, lambda message: None))
            source = resolved.digest
    elif wanted.source.enters_at == "auto":
        wanted = wanted.model_copy(update={"source": wanted.source.model_copy(update={"enters_at": entry})})
    return source, _LightContext(wanted)


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def _compare_run(
    config: CurationConfig, source: Any, last_run: dict[str, Any], content: dict[str, Any] | None, found: State
) -> None:
    """Names the inputs of the run that differ from those of the last one."""
    inputs = run_inputs(config, source)
    known = last_run.get("inputs") or short_digests({"settings": (content or {}).get("settings", {})})
    found.changed += [name for name, value in short_digests(inputs).items() if known.get(name, value) != value]
    if content and content.get("version") != __version__:
        found.changed.append("the program's version")
    if content and UNKNOWN not in inputs.values():
        found.stands &= bool(found.changed) or digest(*inputs.values()) == content["run_digest"]


def _manifest(out: Path, found: State) -> dict[str, Any] | None:
    """The manifest, if it is one that can be used; what is wrong with it, and with what it names, is told."""
    try:
        record.check_not_newer(out, manifest.load(out, sealed=False))
    except UsageError as error:
        found.refused = str(error)
        found.problems.append("a newer version of the program wrote here: this one shows what it understands")
    except StorageError:
        pass
    try:
        content = manifest.load(out)
        if content is None:
            return None
        found.published, found.publication = content["rows"], content.get("publication", 1)
        found.made_by = publication.made_by(content)
        entries = [*content["files"], *content["rejected_files"]]
        wrong = [out / e["path"] for e in entries if not _is_of_size(out / e["path"], e["bytes"])]
        found.problems += [f"{path}: missing, or not of the size that the manifest says" for path in wrong]
        found.stands = not wrong and bool(content["run_digest"])
        return content
    except StorageError as error:
        found.problems.append(str(error))
    except (KeyError, TypeError) as error:
        found.problems.append(f"{out / manifest.NAME}: damaged: it lacks {error}")
    found.published = None
    return None


def _is_of_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _of_last_run(last: dict[str, Any], out: Path, found: State) -> CurationConfig | None:
    try:
        return record.rerun_of(last, [], out)
    except ConfigError as error:
        found.problems.append(str(error))
        return None


def _read_plan(work: Path, found: State) -> dict[str, str]:
    """The short digests of the plan's inputs; fills in the number of shards."""
    path = work / "plan.json"
    try:
        facts = json.loads(path.read_text("utf-8"))
        found.shards, known = int(facts["shards"]), dict(facts.get("inputs", {}))
        return known
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        found.problems.append(f"{path}: damaged ({error!r}); a run that needs it plans again")
    return {}


def _compare_plan(work: Path, config: CurationConfig, source: Any, *, limited: bool, found: State) -> None:
    """Names the inputs of the plan that differ. limited: whether the limit of the last run is known."""
    known = _read_plan(work, found)
    inputs = plan_inputs(config, source)
    if limited:
        inputs["source.limit"] = config.source.limit
    found.replan += [name for name, value in short_digests(inputs).items() if known.get(name, value) != value]


def _stages(work: Path, content: dict[str, Any] | None, wanted: CurationConfig | None) -> list[str]:
    if content:
        return [step["stage"] for step in content["funnel"]]
    if wanted and wanted.source.enters_at != "auto":
        return list(wanted.stages)
    # Answers that the source brings skip the first stages; the last two are in every run.
    there = [name for name in schema.STAGES if (work / name).is_dir() or name in schema.STAGES[-2:]]
    return list(schema.STAGES) if "sample" in there or there[0] != "source" else there


def _stage(work: Path, stage: str, previous: str | None, found: State, inputs: dict[str, Any]) -> StageState:
    """inputs: what determines the stage's output; empty where that is not known, and for the source."""
    result = StageState(stage)
    damaged: list[str] = []
    numbers = [p for p in (work / stage).glob("*.json") if p.stem.isdigit()]
    for number in range(found.shards if found.shards is not None else len(numbers)):
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
        changed = _changed_inputs(facts, BY_NAME[stage], inputs, source) if inputs and source else []
        result.stale += bool(changed)
        result.done += not changed
        result.why |= {name: result.why.get(name, 0) + 1 for name in changed}
    if damaged:
        more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
        names = f"{work / stage}: {', '.join(damaged[:3])}{more}"
        found.problems.append(f"{names}: damaged or incomplete; a run that needs them rebuilds them")
    result.damaged = len(damaged)
    return result


def _changed_inputs(facts: StageFile, stage: Stage, inputs: dict[str, Any], source: StageFile) -> list[str]:
    """Names of the inputs that a shard was not made from; none when its digest is the one that a run would want."""
    if UNKNOWN not in inputs.values() and facts.digest == digest(stage.digest(inputs), source.content):
        return []
    named = stage.short_digests(inputs, source.content)
    changed = [name for name, value in named.items() if facts.inputs.get(name, value) != value]
    return changed if changed or UNKNOWN in inputs.values() else ["the stage's inputs"]


def _money(work: Path, found: State) -> None:
    """Calls and US dollars from the journal, opened for reading only: also while a run writes it."""
    import sqlite3
    from contextlib import closing

    from pipeline.models import journal_tables
    from pipeline.models.batch.ledger import unfinished
    from pipeline.storage.location import journal_of

    found.batches = sum(batch.size for batch in unfinished(work))
    path = journal_of(work.parent)
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            answered = journal_tables.spent(db)
            (charged,) = db.execute("SELECT total(cost_usd) FROM charges").fetchone()
            found.calls = {stage: answers for stage, (answers, _) in answered.items() if answers}
            found.cost_usd = round(sum(pico for _, pico in answered.values()) / 1e12 + charged, 6)
    except sqlite3.Error as error:
        found.problems.append(f"{path}: the journal can't be read ({error}); a run sets a damaged one aside")


def _owner(path: Path) -> str | None:
    """Who is at work in the folder, and whether that is still so, as far as this machine can tell."""
    if not path.is_file():
        return None
    text = path.read_text("utf-8", "replace").partition("\n")[0]
    owner = re.fullmatch(r"process (\d+) on (.+)", text)
    if not owner or owner[2] != socket.gethostname():
        return f"{text}, if that still runs"
    try:
        os.kill(int(owner[1]), 0)
    except ProcessLookupError:
        return f"nobody: {text} ended without tidying up, and the next run takes over"
    except (OSError, OverflowError):
        return f"{text}, if that still runs"
    return text
