"""Child of the orchestration suite: one run, through Prefect or not, timed after start-up. Prints one JSON object."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import flow

import flows.curate
from flows.runners import running_on
from pipeline.config.loading import load_config
from pipeline.config.settings import CurationConfig
from pipeline.curate import curate, in_threads
from tests.conftest import Silent


def through_prefect(config: CurationConfig) -> Any:
    return flows.curate.run_with_prefect(config, Silent())


def without(config: CurationConfig) -> Any:
    return curate(config, in_threads, Silent())


def timed_run(run: Callable[[CurationConfig], Any], settings: dict[str, Any], out: Path) -> float:
    """Seconds of a whole run, after a small one that pays for imports, connections and the server's first answers."""
    run(load_config(flags={**settings, "source.limit": 4, "output.dir": str(out / "warm")}))
    config = load_config(flags={**settings, "output.dir": str(out / "timed")})
    start = time.perf_counter()
    run(config)
    return time.perf_counter() - start


def many_tasks(settings: dict[str, Any], count: int) -> float:
    """Seconds for `count` task runs that do nothing, in one flow: one per shard and stage, each after the one before."""
    flows.curate.run_stages = lambda *arguments: 0  # type: ignore[attr-defined]
    config = load_config(flags=settings)

    @flow(name="many", persist_result=False, validate_parameters=False)
    def many() -> None:
        with running_on(config):
            tasks = flows.curate.InTasks(config, print)
            tasks(config, count // 6, ("sample", "score"), None)
            tasks(config, count // 6, ("select", "revise", "filter", "label"), None)

    start = time.perf_counter()
    many()
    return time.perf_counter() - start


def main() -> None:
    kind, out, settings, count = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4])
    if kind == "tasks":
        seconds = many_tasks(settings, count)
    else:
        seconds = timed_run(through_prefect if kind == "prefect" else without, settings, out)
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
