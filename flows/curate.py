"""The curation run as a Prefect flow. All that knows Prefect is in this package.

    curate(config)                   the flow, also of a deployment: one parameter, the whole configuration
    ├─ sample to score 00000 …       one task a shard and phase, never one a row
    └─ select to label 00000 …

Tasks keep no results at Prefect (nothing is pickled) and are never cached there: the stage files are the memory, so a new
run with the same parameters does only what isn't done. That is also how a crashed or cancelled run is resumed.
"""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Failed

from flows import artifacts, caller, lease, submit
from flows.health import server_answers
from flows.runners import running_on, share
from pipeline.config.settings import CurationConfig
from pipeline.curate import Outcome, Watcher, in_threads
from pipeline.curate import curate as run_curation
from pipeline.errors import CurationError
from pipeline.models import event_loop
from pipeline.run.shards import context_of, run_stages
from pipeline.stages.table import Thresholds
from pipeline.text import describe_error


@task(name="shards", task_run_name=submit.name, cache_policy=NO_CACHE, persist_result=False)
def run_shards(
    config: CurationConfig, shards: range, stages: tuple[str, ...], thresholds: Thresholds | None, run: str | None
) -> int | State[Any]:
    """Bring a few shards through one phase; returns the rows that came out. Never retried row by row: that happens inside.

    run: the lease of the flow run, for a worker that may outlive it.
    """
    try:
        with lease.obeyed(config, run):
            return sum(run_stages(config, shard, stages, thresholds) for shard in shards)
    except (CurationError, CancelledError) as error:
        # A state, not an exception: its message says all, and Prefect would log a page of traceback.
        return Failed(message=str(error) or "stopped with its run", data=error)


def in_tasks(config: CurationConfig, shards: int, stages: tuple[str, ...], thresholds: Thresholds | None) -> None:
    """The Prefect executor: one task a shard, `run.workers` of them at a time; the first failure stops the rest."""
    here = context_of(config)
    here.stopped.clear()
    mine = share(config, here.journal.spent())
    with lease.held(config) as run:
        try:
            submit.each_part(
                submit.parts(shards),
                lambda part: run_shards.submit(mine, part, stages, thresholds, run),
                at_a_time=config.shards_at_a_time,
            )
        except BaseException:
            here.stopped.set()
            event_loop.cancel_all()
            raise


def _name() -> str:
    source = flow_run.parameters["config"].source
    return f"curate-{source.name}-{source.limit or 'all'}"


@flow(name="curate", flow_run_name=_name, persist_result=False)
def curate(config: CurationConfig) -> dict[str, Any] | State[Any]:
    """Make a FIGA data set: sample, score, select, revise, filter, label, publish. Returns where it is and its row counts.

    A Prefect server that goes away in the middle stops the flow, not the data: the rest is done without it.
    """
    watcher = caller.watcher()
    try:
        with running_on(config):
            outcome = run_curation(config, in_tasks, watcher)
    except CurationError as error:
        caller.keep(error)
        return Failed(message=str(error), data=error)
    except Exception as error:
        watcher.warn(f"Prefect failed ({describe_error(error, 500)}); the run goes on without it")
        outcome = run_curation(config, in_threads, watcher)
    caller.keep(outcome)
    if server_answers():
        try:
            artifacts.tell(outcome)
        except Exception as error:
            watcher.warn(f"the data set is published, but Prefect refused to hear all of it: {error}")
    else:
        watcher.warn("the data set is published, but the Prefect server doesn't answer any more")
    return {"out": str(outcome.out), "calls": outcome.calls, "done": outcome.already_done, **outcome.manifest["rows"]}


def run_with_prefect(config: CurationConfig, watcher: Watcher) -> Outcome:
    """Run the flow from this process, with the command line's display. Raises CurationError as the plain run does."""
    caller.display.set(watcher)
    kept: list[Outcome | CurationError] = []
    caller.kept.set(kept)
    try:
        curate(config)
    except Exception:
        # The server may be gone when the flow wants to tell it how it ended.
        if not kept:
            raise
    if isinstance(kept[0], CurationError):
        raise kept[0]
    return kept[0]
