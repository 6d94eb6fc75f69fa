"""The curation run as a Prefect flow. All that knows Prefect is in this package.

    curate(config)                   the flow, also of a deployment: one parameter, the whole configuration
    ├─ sample to score 00000 …       one task per shard and phase, never one per row
    └─ select to label 00000 …

Tasks keep no results at Prefect (nothing is pickled) and are never cached there: the stage files are the memory, so a new
run with the same parameters does only what isn't done. That is also how a crashed or cancelled run is resumed.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from queue import SimpleQueue
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run, task_run
from prefect.states import Failed

from flows import artifacts, lease
from flows.reporter import Caller, caller, flow_reporter, keep, server_answers
from flows.runners import running_on, share
from pipeline.config.settings import CurationConfig
from pipeline.curate import Outcome, Reporter, in_threads
from pipeline.curate import curate as run_curation
from pipeline.errors import CurationError
from pipeline.models import event_loop
from pipeline.run.shards import context_of, run_stages
from pipeline.stages.select import Thresholds
from pipeline.text import describe_error

# Of a phase. Sources up to 13 million rows have fewer shards than this; beyond, a task takes several.
_MOST_TASKS = 1024


def _task_name() -> str:
    """The stages, and the numbers that the shards' files have."""
    stages, shards = task_run.parameters["stages"], task_run.parameters["shards"]
    numbers = f"{shards[0]:05d}" if len(shards) == 1 else f"{shards[0]:05d}-{shards[-1]:05d}"
    return f"{stages[0]} to {stages[-1]} {numbers}"


@task(name="shards", task_run_name=_task_name, cache_policy=NO_CACHE, persist_result=False)
def run_shards(
    config: CurationConfig, shards: range, stages: tuple[str, ...], thresholds: Thresholds | None, run: str | None
) -> int | State[Any]:
    """Bring a few shards through one phase; returns the rows that came out. Retries happen inside, per call.

    run: the lease of the flow run, for a worker that may outlive it.
    """
    try:
        with lease.obeyed(config, run):
            return sum(run_stages(config, shard, stages, thresholds) for shard in shards)
    except (CurationError, CancelledError) as error:
        # A state, not an exception: its message says all, and Prefect would log a page of traceback.
        return Failed(message=str(error) or "stopped with its run", data=error)


def in_tasks(config: CurationConfig, shards: int, stages: tuple[str, ...], thresholds: Thresholds | None) -> None:
    """The Prefect executor: one task per shard, `run.workers` of them at a time; the first failure stops the rest."""
    context = context_of(config)
    context.stopped.clear()
    worker_config = share(config, context.journal.spent())
    with lease.held(config) as run:
        try:
            each_part(
                parts(shards),
                lambda part: run_shards.submit(worker_config, part, stages, thresholds, run),
                at_a_time=config.shards_at_a_time,
            )
        except BaseException:
            context.stopped.set()
            event_loop.cancel_all()
            raise


def parts(shards: int) -> Iterator[range]:
    """The shards of each task: one, or as many consecutive ones as keep a phase at 1,024 tasks."""
    size = max(1, -(-shards // _MOST_TASKS))
    return (range(first, min(first + size, shards)) for first in range(0, shards, size))


def each_part(pending: Iterable[range], submit: Callable[[range], PrefectFuture[Any]], *, at_a_time: int) -> None:
    """Submit a task for each part, the next one when one ends, and wait for all. Raises what the first failed one raised.

    No more than `at_a_time` are ever out, however many workers a cluster has: each has a share of the calls for so many.
    """
    ended: SimpleQueue[PrefectFuture[Any]] = SimpleQueue()
    out = 0
    for part in pending:
        if out == at_a_time:
            ended.get().result()
            out -= 1
        submit(part).add_done_callback(ended.put)
        out += 1
    for _ in range(out):
        ended.get().result()


def _flow_name() -> str:
    source = flow_run.parameters["config"].source
    return f"curate-{source.name}-{source.limit or 'all'}"


@flow(name="curate", flow_run_name=_flow_name, persist_result=False)
def curate(config: CurationConfig) -> dict[str, Any] | State[Any]:
    """Create a FIGA data set: sample, score, select, revise, filter, label, publish. Returns its folder and row counts.

    A Prefect server that goes away in the middle stops the flow, not the data: the rest is done without it.
    """
    reporter = flow_reporter()
    try:
        with running_on(config):
            outcome = run_curation(config, in_tasks, reporter)
    except CurationError as error:
        keep(error)
        return Failed(message=str(error), data=error)
    except Exception as error:
        reporter.warn(f"Prefect failed ({describe_error(error, 500)}); the run goes on without it")
        outcome = run_curation(config, in_threads, reporter)
    keep(outcome)
    if server_answers():
        try:
            artifacts.publish(outcome)
        except Exception as error:
            reporter.warn(f"the data set is published, but Prefect refused some of its artifacts: {error}")
    else:
        reporter.warn("the data set is published, but the Prefect server doesn't answer any more")
    return {"out": str(outcome.out), "calls": outcome.calls, "done": outcome.already_done, **outcome.manifest["rows"]}


def run_with_prefect(config: CurationConfig, display: Reporter) -> Outcome:
    """Run the flow from this process, with the command line's display. Raises CurationError as the plain run does."""
    current = Caller(display)
    caller.set(current)
    try:
        curate(config)
    except Exception:
        # The server may be gone when the flow reports how it ended.
        if not current.endings:
            raise
    ending = current.endings[0]
    if isinstance(ending, CurationError):
        raise ending
    return ending
