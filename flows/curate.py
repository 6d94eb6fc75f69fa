"""The curation run as a Prefect flow. All that knows Prefect is in this package.

    curate(config)                        a deployment's entry point: one parameter, the whole configuration
    └─ curate-shards                      the run itself (pipeline.curate), on a bounded task runner
       ├─ sample to score 00000 …         one task a shard and phase, never one a row
       └─ select to label 00000 …

Tasks keep no results at Prefect (nothing is pickled) and are never cached there: the stage files are the memory, so a new
run with the same parameters does only what isn't done.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

from flows.watch import LogWatcher
from pipeline.config import CurationConfig
from pipeline.curate import Outcome, Thresholds, Watcher
from pipeline.curate import curate as run_curation
from pipeline.models import loop
from pipeline.shards import context_of, run_stages
from pipeline.storage import manifest

# The command line's display, when it is the one that started the flow.
_display: ContextVar[Watcher | None] = ContextVar("display", default=None)


@task(name="shard", task_run_name="{stages[0]} to {stages[1]} {shard}", cache_policy=NO_CACHE, persist_result=False)
def run_shard(config: CurationConfig, shard: int, stages: tuple[str, ...], thresholds: Thresholds | None) -> int:
    """Bring one shard through one phase. Never retried row by row: that happens inside."""
    return run_stages(config, shard, stages, thresholds)


def in_tasks(config: CurationConfig, shards: int, stages: tuple[str, ...], thresholds: Thresholds | None) -> None:
    """The Prefect executor: one task a shard."""
    futures = [run_shard.submit(config, shard, stages, thresholds) for shard in range(shards)]
    try:
        for future in futures:
            future.result()
    except BaseException:
        loop.cancel_all()
        raise


@flow(name="curate-shards", persist_result=False, validate_parameters=False)
def curate_shards(config: CurationConfig) -> dict[str, Any]:
    """The run, with its shards as tasks."""
    outcome = run_curation(config, in_tasks, _display.get() or LogWatcher(get_run_logger()))
    return {"out": str(outcome.out), "calls": outcome.calls, "done": outcome.already_done, **outcome.manifest["rows"]}


@flow(name="curate", flow_run_name="curate-{config.source.name}", persist_result=False)
def curate(config: CurationConfig) -> dict[str, Any]:
    """Make a FIGA data set: sample, score, select, revise, filter, label, publish. Returns where it is and its row counts.

    A deployment ignores the entry flow's own task runner, so the run is a flow of its own, on one that it is given here.
    """
    runner: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=config.run.workers)
    result: dict[str, Any] = curate_shards.with_options(task_runner=runner)(config)  # type: ignore[arg-type]
    return result


def run_with_prefect(config: CurationConfig, watcher: Watcher) -> Outcome:
    """Run the flow from this process, with the command line's display. Raises CurationError as the plain run does."""
    _display.set(watcher)
    result = curate(config)
    content = manifest.load(config.out)
    assert content is not None  # noqa: S101 - the flow has just published it
    return Outcome(config.out, content, result["calls"], None if result["done"] else context_of(config))
