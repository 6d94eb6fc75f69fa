"""The state of an output folder, and what the same command would do in it: behind `figa status`.

Reads facts, never rows, and asks no model; works on folders that are half done, broken or in use.
"""

from __future__ import annotations

import json
import os
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import __version__, schema, sources
from pipeline.config.settings import CurationConfig
from pipeline.dataset import manifest
from pipeline.errors import ConfigError, CurationError, StorageError, UsageError
from pipeline.run import entry, parts, record
from pipeline.run import publish as publication
from pipeline.storage import stage_files


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
    work, found, told = out / "work", State(str(out)), record.recall(out)
    content = _manifest(out, found)
    last = told.get("settings") or (content or {}).get("settings")
    if wanted is None and last and found.made_by == "build":
        wanted = _of_last_run(last, out, found)
    elif wanted and last:
        found.changed += _differing(last, record.settings(wanted))
    if content and found.made_by == "build" and content.get("version") != __version__:
        found.changed.append("the program's version")
    found.stands &= content is not None and told.get("run_digest", content["run_digest"]) == content["run_digest"]
    _plan(work, wanted, limited="limit" in (last or {}).get("source", ()), found=found)
    asked = parts.by_stage(wanted) if wanted else {}
    stages = _stages(work, content, wanted) if found.made_by == "build" else []
    for previous, stage in zip([None, *stages], stages, strict=False):
        found.stages.append(_stage(work, stage, previous, found, asked.get(stage, {})))
    _money(work, found)
    found.owner = _owner(work / "run.owner")
    return found


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


def _differing(last: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Names of data settings with other values. What rows have decided, and what isn't known of the last run, is no change."""
    one, other = (_flat(settings) for settings in (last, wanted))
    return [name for name in one if name in other and one[name] != other[name] and name != "source.enters_at"]


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    return {f"{section}.{name}": value for section, values in settings.items() for name, value in values.items()}


def _plan(work: Path, wanted: CurationConfig | None, *, limited: bool, found: State) -> None:
    """limited: whether the limit of the last run is known."""
    path = work / "plan.json"
    try:
        facts = json.loads(path.read_text("utf-8"))
        found.shards, known = int(facts["shards"]), dict(facts.get("parts", {}))
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        found.problems.append(f"{path}: damaged ({error!r}); a run that needs it plans anew")
        return
    if wanted is None:
        return
    asked = parts.of_plan(wanted) | _content(wanted)
    if not limited:
        del asked["source.limit"]
    found.replan += [name for name, value in asked.items() if known.get(name, value) != value]


def _content(wanted: CurationConfig) -> dict[str, str]:
    """What a source on this machine holds now. Others are not looked at."""
    try:
        here = wanted.source.input is not None and Path(wanted.source.input).exists()
        return (
            {parts.CONTENT: parts.short(sources.resolve_source(wanted.source, lambda message: None).digest)}
            if here
            else {}
        )
    except (OSError, ValueError, CurationError):
        return {}


def _stages(work: Path, content: dict[str, Any] | None, wanted: CurationConfig | None) -> list[str]:
    if content:
        return [step["stage"] for step in content["funnel"]]
    if wanted and wanted.source.enters_at != "auto":
        return list(entry.stages(wanted))
    # Answers that the source brings skip the first stages; the last two are in every run.
    there = [name for name in schema.STAGES if (work / name).is_dir() or name in schema.STAGES[-2:]]
    return list(schema.STAGES) if "sample" in there or there[0] != "source" else there


def _stage(work: Path, stage: str, previous: str | None, found: State, wanted: dict[str, str]) -> StageState:
    told = StageState(stage)
    damaged: list[str] = []
    places = [p for p in (work / stage).glob("*.json") if p.stem.isdigit()]
    for number in range(found.shards if found.shards is not None else len(places)):
        facts = stage_files.inspect(work, stage, number)
        if facts is None:
            path = stage_files.file_path(work, stage, number)
            if path.exists() or path.with_suffix(".json").exists():
                damaged.append(path.name)
            continue
        told.rows += facts.rows
        told.rejected += facts.rejected
        told.unanswered += facts.unanswered
        source = stage_files.inspect(work, previous, number) if previous else None
        asked = wanted | ({"input": parts.short(source.content)} if source else {})
        changed = [name for name, value in asked.items() if facts.parts.get(name, value) != value]
        told.stale += bool(changed)
        told.done += not changed
        told.why |= {name: told.why.get(name, 0) + 1 for name in changed}
    if damaged:
        more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
        names = f"{work / stage}: {', '.join(damaged[:3])}{more}"
        found.problems.append(f"{names}: damaged or incomplete; a run that needs them makes them again")
    told.damaged = len(damaged)
    return told


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
