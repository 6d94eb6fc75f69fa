"""The curation run as a Prefect flow. All that knows Prefect is in this package.

    curate(config)                        a deployment's entry point: one parameter, the whole configuration
    └─ curate-shards                      the run itself (pipeline.curate), on the runner that the configuration names
       ├─ sample to score 00000 …         one task a shard and phase, never one a row
       └─ select to label 00000 …

Tasks keep no results at Prefect (nothing is pickled) and are never cached there: the stage files are the memory, so a new
run with the same parameters does only what isn't done. That is also how a crashed or cancelled run is resumed.
"""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run

from flows import artifacts, caller
from flows.health import server_answers
from flows.runners import share, task_runner
from pipeline.config import CurationConfig
from pipeline.curate import Outcome, Thresholds, Watcher, in_threads
from pipeline.curate import curate as run_curation
from pipeline.errors import CurationError
from pipeline.models import loop
from pipeline.shards import context_of, run_stages


@task(name="shard", task_run_name="{stages[0]} to {stages[1]} {shard:05d}", cache_policy=NO_CACHE, persist_result=False)
def run_shard(config: CurationConfig, shard: int, stages: tuple[str, ...], thresholds: Thresholds | None) -> int:
    """Bring one shard through one phase. Never retried row by row: that happens inside."""
    return run_stages(config, shard, stages, thresholds)


def in_tasks(config: CurationConfig, shards: int, stages: tuple[str, ...], thresholds: Thresholds | None) -> None:
    """The Prefect executor: one task a shard."""
    mine = share(config, context_of(config).journal.spent())
    futures = [run_shard.submit(mine, shard, stages, thresholds) for shard in range(shards)]
    try:
        for future in futures:
            future.result()
    except BaseException:
        loop.cancel_all()
        raise


def _name() -> str:
    source = flow_run.parameters["config"].source
    return f"curate-{source.name}-{source.limit or 'all'}"


@flow(name="curate-shards", persist_result=False, validate_parameters=False)
def curate_shards(config: CurationConfig) -> dict[str, Any]:
    """The run, with its shards as tasks."""
    watcher = caller.watcher()
    outcome = run_curation(config, in_tasks, watcher)
    caller.keep(outcome)
    if server_answers():
        artifacts.tell(outcome)
    else:
        watcher.warn("the data set is published, but the Prefect server doesn't answer any more")
    return _result(outcome)


@flow(name="curate", flow_run_name=_name, persist_result=False)
def curate(config: CurationConfig) -> dict[str, Any]:
    """Make a FIGA data set: sample, score, select, revise, filter, label, publish. Returns where it is and its row counts.

    A deployment ignores the entry flow's own task runner, so the run is a flow of its own, on one that it is given here.
    A Prefect server that goes away in the middle stops the flow, not the data: the rest is done without it.
    """
    try:
        run = curate_shards.with_options(task_runner=task_runner(config))
        result: dict[str, Any] = run(config)
        return result
    except (CurationError, TerminationSignal, KeyboardInterrupt):
        raise
    except Exception as error:
        watcher = caller.watcher()
        watcher.warn(f"Prefect failed ({' '.join(str(error).split())[:200]}); the run goes on without it")
        outcome = run_curation(config, in_threads, watcher)
        caller.keep(outcome)
        return _result(outcome)


def _result(outcome: Outcome) -> dict[str, Any]:
    return {"out": str(outcome.out), "calls": outcome.calls, "done": outcome.already_done, **outcome.manifest["rows"]}


def run_with_prefect(config: CurationConfig, watcher: Watcher) -> Outcome:
    """Run the flow from this process, with the command line's display. Raises CurationError as the plain run does."""
    caller.display.set(watcher)
    outcomes: list[Outcome] = []
    caller.outcomes.set(outcomes)
    try:
        curate(config)
    except Exception:
        # The server may be gone when the flow wants to tell it that all is done.
        if not outcomes:
            raise
    return outcomes[0]
