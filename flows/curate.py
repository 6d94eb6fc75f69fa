"""The curation run as a Prefect flow. All that knows Prefect is in this package.

    curate(config)                   the flow, also of a deployment: one parameter, the whole configuration
    ├─ source ─ plan                 a task each, in the flow's process
    ├─ sample 00000 ─ score 00000 …  one task per stage and shard, never one per row
    ├─ thresholds
    ├─ select 00000 ─ revise 00000 ─ filter 00000 ─ label 00000 …
    └─ publish                       materialises the asset that is named after the output folder

Tasks keep no results at Prefect (nothing is pickled) and are never cached there: the stage files are the memory, so a new
run with the same parameters does only what isn't done. That is also how a crashed or cancelled run is resumed.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from itertools import islice
from queue import SimpleQueue
from typing import Any, TypeVar, cast

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run, task_run
from prefect.states import Failed

from flows import artifacts, lease
from flows.reporter import Caller, caller, flow_reporter, keep, server_answers
from flows.runners import running_on, share, workers_journal
from flows.steps import as_task, failed
from pipeline.config.settings import CurationConfig
from pipeline.curate import Outcome, Reporter, in_threads
from pipeline.curate import curate as run_curation
from pipeline.errors import CurationError
from pipeline.models import event_loop
from pipeline.models.journal_files import gather
from pipeline.run.shards import context_of, run_stages
from pipeline.stages.select import Thresholds
from pipeline.storage import stopping
from pipeline.storage.location import journal_of
from pipeline.text import describe_error

T = TypeVar("T")
# Of a stage. Sources up to 13 million rows have fewer shards than this; beyond, a task takes several.
_MOST_TASKS = 1024


def _task_name() -> str:
    """The stage, and the numbers that the shards' files have."""
    shards = task_run.parameters["shards"]
    numbers = f"{shards[0]:05d}" if len(shards) == 1 else f"{shards[0]:05d}-{shards[-1]:05d}"
    return f"{task_run.parameters['stage']} {numbers}"


@task(name="stage", task_run_name=_task_name, cache_policy=NO_CACHE, persist_result=False)
def run_shards(
    config: CurationConfig, shards: range, stage: str, thresholds: Thresholds | None, run: str | None
) -> int | State[Any]:
    """Bring a few shards through one stage; returns the rows that came out. Retries happen inside, per call.

    run: the lease of the flow run, for a worker that may outlive it.
    """
    try:
        with lease.obeyed(config, run):
            return sum(run_stages(config, shard, (stage,), thresholds) for shard in shards)
    except (CurationError, CancelledError) as error:
        return failed(error)


class InTasks:
    """The Prefect executor: one task per stage and shard, and one per other step, each after those that it needs.

    `run.workers` shards are out at a time; the first failure stops the rest.
    """

    def __init__(self, config: CurationConfig, warn: Callable[[str], None]) -> None:
        self._config, self._warn = config, warn
        # Of the workers; this process always has the main one.
        self._journal = ""
        # What the next tasks wait for: it draws the graph, as all of it has ended before they are submitted.
        self._before: list[Any] = []

    def step(self, name: str, action: Callable[[], T]) -> T:
        """Run `action` as a task, in this process."""
        publishes = name == "publish"
        if publishes and self._journal == "own":
            gather(journal_of(self._config.out))
        result, ended = as_task(name, action, self._before, self._config.out if publishes else None)
        self._before = [ended]
        return result

    def __call__(
        self, config: CurationConfig, shards: int, stages: tuple[str, ...], thresholds: Thresholds | None
    ) -> None:
        context = context_of(config)
        context.stopped.clear()
        self._journal = self._journal or workers_journal(self._config, self._warn)
        worker_config = share(config, context.journal.spent(), self._journal)
        with lease.held(config) as run:

            def submit(part: range, stage: str, after: PrefectFuture[Any] | None) -> PrefectFuture[Any]:
                shard_task: Any = run_shards.with_options(name=stage)
                before = [after] if after else self._before
                future = shard_task.submit(worker_config, part, stage, thresholds, run, wait_for=before)
                return cast("PrefectFuture[Any]", future)

            def stop() -> None:
                context.stopped.set()
                event_loop.cancel_all()

            try:
                with stopping.waking(stop):
                    self._before = each_part(parts(shards), stages, submit, at_a_time=config.shards_at_a_time)
            except BaseException:
                stop()
                raise


def parts(shards: int) -> Iterator[range]:
    """The shards of each task: one, or as many consecutive ones as keep a stage at 1,024 tasks."""
    size = max(1, -(-shards // _MOST_TASKS))
    return (range(first, min(first + size, shards)) for first in range(0, shards, size))


Submit = Callable[[range, str, PrefectFuture[Any] | None], PrefectFuture[Any]]


def each_part(pending: Iterator[range], stages: Sequence[str], submit: Submit, *, at_a_time: int) -> list[Any]:
    """Bring each part through the stages: a task is submitted when that of the stage before has ended.

    Returns the last stage's futures when all have ended; raises what the first failed one raised. No more than `at_a_time`
    parts are ever out, however many workers a cluster has: each has a share of the calls for so many.
    """
    ended: SimpleQueue[tuple[range, int, PrefectFuture[Any]]] = SimpleQueue()
    done = []

    def start(part: range, number: int, after: PrefectFuture[Any] | None) -> None:
        submit(part, stages[number], after).add_done_callback(lambda future: ended.put((part, number, future)))

    out = 0
    for part in islice(pending, at_a_time):
        start(part, 0, None)
        out += 1
    while out:
        part, number, future = ended.get()
        future.result()
        if number + 1 < len(stages):
            start(part, number + 1, future)
            continue
        done.append(future)
        if (following := next(pending, None)) is not None:
            start(following, 0, None)
        else:
            out -= 1
    return done


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
            tasks = InTasks(config, reporter.warn)
            mine = config.model_copy(update={"run": config.run.model_copy(update={"journal": "shared"})})
            outcome = run_curation(mine, tasks, reporter, tasks.step)
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
