"""`figa status DIR`: what is in an output folder, and what a rerun would do and why.

Loads no model and calls none; works on folders that are half done, damaged or in use.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.arguments import add_json, add_set
from pipeline.storage.location import argument
from pipeline.text import visible

if TYPE_CHECKING:
    from pipeline.config.settings import CurationConfig
    from pipeline.run.status import State


INTERRUPTED = "nothing was changed"
EPILOG = """\
example:
  figa status out/hh-rlhf --set reviser.temperature=0.5
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("dir", metavar="DIR", type=argument, help="an output folder")
    p.add_argument(
        "--config",
        metavar="FILE.yaml",
        type=Path,
        help="settings that a rerun would have; default: those of the last run",
    )
    add_set(p, "and changes to them")
    add_json(p)


def run(arguments: argparse.Namespace) -> int:
    from pipeline.errors import InputError
    from pipeline.run.status import folder_state

    if not arguments.dir.is_dir():
        raise InputError(f"{arguments.dir}: no such folder; give the output folder of a run")
    asked = arguments.config is not None or arguments.set
    found = folder_state(arguments.dir, _wanted(arguments) if asked else None)
    if arguments.json:
        print(json.dumps({**asdict(found), "rerun": found.rerun}, ensure_ascii=False))
    else:
        _print(found)
    return 0


def _wanted(arguments: argparse.Namespace) -> CurationConfig:
    """The settings of the file, or else of the last run, changed by those given."""
    from pipeline.config.loading import load_config
    from pipeline.dataset import manifest
    from pipeline.run import record

    told = record.recall(arguments.dir) or manifest.load(arguments.dir) or {}
    if arguments.config or "settings" not in told:
        return load_config(arguments.config, arguments.set, {"output.dir": str(arguments.dir)}, os.environ)
    return record.rerun_of(told["settings"], arguments.set, arguments.dir)


def _print(found: State) -> None:

    if found.stages:
        print(f"{'stage':8} {'done':>7} {'stale':>6} {'damaged':>8} {'rows':>10} {'rejected':>9}")
    for s in found.stages:
        shards = "?" if found.shards is None else found.shards
        print(f"{s.stage:8} {s.done:>3}/{shards:<3} {s.stale:>6} {s.damaged:>8} {s.rows:>10} {s.rejected:>9}")
    if found.made_by == "build":
        calls = ", ".join(f"{stage} {count}" for stage, count in found.calls.items()) or "none"
        print(f"answers   {calls}; ${found.cost_usd:.4f} spent")
    if found.batches:
        print(f"batches   {found.batches} requests are still at the provider; a rerun collects them")
    rows = found.published
    how = {"merge": ", made by merging", "relabel": ", made by relabelling"}.get(found.made_by, "")
    print("published " + (f"{rows['published']} of {rows['read']} rows" if rows else "nothing"), end="")
    print(f", publication {found.publication} in this folder{how}" if rows else "")
    if found.owner:
        print(f"in use    by {visible(found.owner)}")
    for problem in found.problems:
        print(f"problem   {visible(problem)}")
    for line in found.rerun or ["nothing"]:
        print(f"a rerun   {visible(line)}")
