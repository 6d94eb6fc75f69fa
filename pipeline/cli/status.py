"""`figa status DIR`: what is in an output folder, and what a rerun would do and why.

Loads no model and calls none; works on folders that are half done, damaged or in use.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from pipeline.cli.arguments import add_config, add_dir, add_set
from pipeline.cli.console import print_values
from pipeline.text import visible

if TYPE_CHECKING:
    from pipeline.config.settings import CurationConfig

EXAMPLES = ("figa status out/hh-rlhf --set reviser.temperature=0.5",)


def add_arguments(p: argparse.ArgumentParser) -> None:
    add_dir(p, "an output folder")
    add_config(p, "a rerun's settings; default: the last run's")
    add_set(p, "and changes to them")


def run(arguments: argparse.Namespace) -> tuple[int, object]:
    from pipeline.run.status import folder_state

    changes = arguments.config is not None or arguments.set or arguments.allow_plugins
    state = folder_state(arguments.dir, _rerun_config(arguments) if changes else None)
    if arguments.json:
        return 0, {**asdict(state), "rerun": state.rerun}
    if state.stages:
        print(f"{'stage':8} {'done':>7} {'stale':>6} {'damaged':>8} {'rows':>10} {'rejected':>9}")
    for s in state.stages:
        shards = "?" if state.shards is None else state.shards
        print(f"{s.stage:8} {s.done:>3}/{shards:<3} {s.stale:>6} {s.damaged:>8} {s.rows:>10} {s.rejected:>9}")
    if state.made_by == "build":
        calls = ", ".join(f"{stage} {count}" for stage, count in state.calls.items()) or "none"
        print_values(answers=f"{calls}; ${state.cost_usd:.4f} spent")
    if state.batches:
        print_values(batches=f"{state.batches} requests are still at the provider; a rerun collects them")
    published = "nothing"
    if rows := state.published:
        how = {"merge": ", made by merging", "relabel": ", made by relabelling", "review": ", made by a review"}.get(
            state.made_by, ""
        )
        published = f"{rows['published']} of {rows['read']} rows, publication {state.publication} in this folder{how}"
    print_values(published=published)
    if state.owner:
        print(f"in use    by {visible(state.owner)}")
    for problem in state.problems:
        print_values(problem=visible(problem))
    for line in state.rerun or ["nothing"]:
        print(f"a rerun   {visible(line)}")
    return 0, None


def _rerun_config(arguments: argparse.Namespace) -> CurationConfig:
    """The settings of --config, or else of the last run, with the changes of --set."""
    from pipeline.config.loading import load_config
    from pipeline.dataset import manifest
    from pipeline.run import record

    last = record.recall(arguments.dir) or manifest.load(arguments.dir) or {}
    if arguments.config or "settings" not in last:
        flags = {"output.dir": str(arguments.dir)}
        return load_config(arguments.config, arguments.set, flags, os.environ, allow_code=arguments.allow_plugins)
    return record.rerun_of(last["settings"], arguments.set, arguments.dir, allow_code=arguments.allow_plugins)
