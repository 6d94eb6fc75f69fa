"""The command line: `python -m pipeline.status DIR`. What is in an output folder, and what a rerun would do and why.

Reads facts, never rows, and asks no model; works on folders that are half done, broken or in use.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_STAGES = ("source", "sample", "score", "select", "revise", "filter", "label")


@dataclass(slots=True)
class StageStatus:
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
    why: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Status:
    """shards: as planned; None when there is no plan. published: rows by the manifest; calls, cost_usd: by the journal."""

    out: str
    shards: int | None
    stages: list[StageStatus]
    published: dict[str, int] | None
    calls: dict[str, int] = field(default_factory=dict)
    cost_usd: float = 0.0
    owner: str | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def rerun(self) -> list[str]:
        """What the same command would do, a line each; empty when nothing."""
        if self.shards is None and self.published:
            return []
        if self.shards is None:
            return ["plan the source and run every stage: there is no plan yet"]
        told = []
        for stage in self.stages:
            missing = self.shards - stage.done - stage.stale
            if missing > 0:
                told.append(f"{stage.stage}: make {missing} of {self.shards} shards that are missing or damaged")
            if stage.stale:
                reasons = ", ".join(f"{name} changed" for name in stage.why) or "other settings"
                told.append(f"{stage.stage}: make {stage.stale} shards again: {reasons}")
            if stage.unanswered:
                told.append(f"{stage.stage}: ask again for {stage.unanswered} rows that a provider left unanswered")
        return told if told or self.published else ["publish: all shards are done, and no manifest stands"]


def status(out: Path, wanted: dict[str, dict[str, str]] | None = None) -> Status:
    """The state of an output folder. wanted: for stages, the digests of the parts of what a rerun would ask for."""
    from pipeline.errors import StorageError
    from pipeline.storage import manifest

    work = out / "work"
    problems: list[str] = []
    try:
        content = manifest.load(out)
        published = content["rows"] if content else None
        stages = [step["stage"] for step in content["funnel"]] if content else []
        problems += _missing(out, content) if content else []
    except (StorageError, KeyError, TypeError) as error:
        published, stages = None, []
        problems.append(str(error) if isinstance(error, StorageError) else f"{out / manifest.NAME}: lacks {error}")
    shards = _planned(work, problems)
    # Answers that the source brings skip the first stages; the last two are in every run.
    there = [name for name in _STAGES if (work / name).is_dir() or name in _STAGES[-2:]]
    stages = stages or (list(_STAGES) if "sample" in there or there[0] != "source" else there)
    found = Status(str(out), shards, [], published, problems=problems)
    for previous, stage in zip([None, *stages], stages, strict=False):
        found.stages.append(_stage(work, stage, previous, shards, (wanted or {}).get(stage, {}), problems))
    _money(work, found)
    owner = work / "run.owner"
    found.owner = owner.read_text("utf-8", "replace") if owner.is_file() else None
    return found


def _missing(out: Path, content: dict[str, Any]) -> list[str]:
    named = [out / entry["path"] for entry in [*content["files"], *content["rejected_files"]]]
    sizes = [entry["bytes"] for entry in [*content["files"], *content["rejected_files"]]]
    return [
        f"{path}: missing or not of the size that the manifest says; the same command publishes it again"
        for path, size in zip(named, sizes, strict=True)
        if not path.is_file() or path.stat().st_size != size
    ]


def _planned(work: Path, problems: list[str]) -> int | None:
    path = work / "plan.json"
    try:
        return int(json.loads(path.read_text("utf-8"))["shards"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        problems.append(f"{path}: damaged ({error}); a rerun plans anew")
        return None


def _stage(
    work: Path, stage: str, previous: str | None, shards: int | None, wanted: dict[str, str], problems: list[str]
) -> StageStatus:
    from pipeline.storage import stagefile

    found = StageStatus(stage)
    places = [p for p in (work / stage).glob("*.json") if p.stem.isdigit()]
    for number in range(shards if shards is not None else len(places)):
        facts = stagefile.inspect(work, stage, number)
        if facts is None:
            if stagefile.file_path(work, stage, number).with_suffix(".json").exists():
                found.damaged += 1
                problems.append(
                    f"{stagefile.file_path(work, stage, number)}: damaged or incomplete; a rerun makes it again"
                )
            continue
        found.rows += facts.rows
        found.rejected += facts.rejected
        found.unanswered += facts.unanswered
        source = stagefile.inspect(work, previous, number) if previous else None
        asked = wanted | ({"input": source.content[:8]} if source else {})
        changed = [name for name, value in asked.items() if facts.parts.get(name, value) != value]
        found.stale += bool(changed)
        found.done += not changed
        found.why.update(changed)
    return found


def _money(work: Path, found: Status) -> None:
    """Calls and US dollars from the journal, opened for reading only: also while a run writes it."""
    import sqlite3
    from contextlib import closing

    path = work / "journal.db"
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            found.calls = dict(db.execute("SELECT stage, count(*) FROM answers GROUP BY stage ORDER BY stage"))
            answers, charges = (
                db.execute(f"SELECT total(cost_usd) FROM {table}").fetchone()[0] for table in ("answers", "charges")
            )
            found.cost_usd = round(answers + charges, 6)
    except sqlite3.Error as error:
        found.problems.append(f"{path}: the journal can't be read ({error}); a rerun sets a damaged one aside")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m pipeline.status", description=(__doc__ or "").split("`. ", 1)[-1])
    p.add_argument("dir", metavar="DIR", type=Path, help="an output folder")
    p.add_argument("--config", metavar="FILE.yaml", type=Path, help="settings that a rerun would have; --set before it")
    p.add_argument("--set", metavar="key.sub=value", action="append", default=[], help="one of them; repeatable")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = parser().parse_args(argv)
    from pipeline.errors import CurationError, InputError

    try:
        if not arguments.dir.is_dir():
            raise InputError(f"{arguments.dir}: no such folder; give the output folder of a run")
        asked = arguments.config is not None or arguments.set
        found = status(arguments.dir, _wanted(arguments) if asked else None)
    except CurationError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if arguments.json:
        print(json.dumps({**asdict(found), "rerun": found.rerun}, ensure_ascii=False))
    else:
        _print(found)
    return 0


def _wanted(arguments: argparse.Namespace) -> dict[str, dict[str, str]]:
    from pipeline import parts
    from pipeline.config_loading import load_config

    return parts.by_stage(load_config(arguments.config, arguments.set, {"output.dir": str(arguments.dir)}))


def _print(found: Status) -> None:
    from pipeline.diffs import visible

    print(f"{'stage':8} {'done':>7} {'stale':>6} {'damaged':>8} {'rows':>10} {'rejected':>9}")
    for s in found.stages:
        print(
            f"{s.stage:8} {s.done:>3}/{found.shards or '?':<3} {s.stale:>6} {s.damaged:>8} {s.rows:>10} {s.rejected:>9}"
        )
    calls = ", ".join(f"{stage} {count}" for stage, count in found.calls.items()) or "none"
    print(f"answers   {calls}; ${found.cost_usd:.4f} spent")
    rows = found.published
    print("published " + (f"{rows['published']} of {rows['read']} rows" if rows else "nothing"))
    if found.owner:
        print(f"in use    by {visible(found.owner)}, if that still runs")
    for problem in found.problems:
        print(f"problem   {visible(problem)}")
    for line in found.rerun or ["nothing"]:
        print(f"a rerun   {line}")


if __name__ == "__main__":
    sys.exit(main())
