"""Run one stage on one shard: read its input, do it unless it is done, commit the result."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError

import pyarrow as pa

from pipeline.config.settings import CurationConfig, digest
from pipeline.errors import StorageError
from pipeline.rewards import RewardModel
from pipeline.run import entry, parts
from pipeline.run.context import Context
from pipeline.run.progress import StageProgress
from pipeline.stages.common import OnProgress
from pipeline.stages.filter import filter_revisions
from pipeline.stages.label import label
from pipeline.stages.revise import revise
from pipeline.stages.sample import sample
from pipeline.stages.score import score
from pipeline.stages.select import Thresholds, select
from pipeline.storage import stage_files
from pipeline.storage.stage_files import StageFile, StageOutput

_making = threading.Lock()


# The least recently used first.
_contexts: dict[str, Context] = {}
_MOST_CONTEXTS = 2


def context_of(config: CurationConfig, *, anew: bool = False) -> Context:
    """This process's context of a run: made once, whichever thread asks first.

    anew: make it even so, for a new run: the files of tokenizer and reward model may have changed since the last one.
    """
    with _making:
        key = config.model_dump_json()
        context = _contexts.pop(key, None)
        if context is None or anew:
            context = Context(config).prepare()
        while len(_contexts) >= _MOST_CONTEXTS:
            del _contexts[next(iter(_contexts))]
        _contexts[key] = context
        return context


def forget_contexts() -> None:
    """What is asked for next is made anew: for a process that works for one run after another."""
    with _making:
        _contexts.clear()


def run_stages(
    config: CurationConfig, shard: int, stages: tuple[str, ...], thresholds: dict[str, float | None] | None = None
) -> int:
    """Bring a shard through consecutive stages; returns the rows that came out. Arguments can go to another process."""
    context = context_of(config)
    file = None
    for stage in stages:
        file = run_stage(context, shard, stage, thresholds)
    return file.rows if file else 0


def run_stage(context: Context, shard: int, stage: str, thresholds: dict[str, float | None] | None) -> StageFile:
    """The stage's file for this shard, made now unless it is there with the digest that is asked for.

    A file with rows that only a provider's passing trouble kept from an answer is made again: the journal has the others.
    """
    stages = entry.stages(context.config)
    previous = stages[stages.index(stage) - 1]
    source = stage_files.inspect(context.work, previous, shard)
    if source is None:
        raise StorageError(
            f"{stage_files.file_path(context.work, previous, shard)}: gone or damaged; run again to rebuild it"
        )
    wanted = digest(context.stage_digest(stage, thresholds), source.content)
    done = stage_files.inspect(context.work, stage, shard)
    progress = StageProgress(context.work, stage, shard, source.rows)
    if done is None or done.digest != wanted or done.unanswered:
        with context.place(stage, source.rows):
            if context.stopped.is_set():
                raise CancelledError
            rows = stage_files.read(source)
            output = _run(context, stage, rows, thresholds, progress.add)
        rejects = stage_files.reject_table(stage, rows, output.rejects)
        unanswered = sum(reject.unanswered for reject in output.rejects)
        done = stage_files.commit(
            context.work,
            stage,
            shard,
            wanted,
            output.rows,
            rejects,
            unanswered=unanswered,
            notes=output.notes,
            parts={"input": parts.short(source.content), **context.parts.get(stage, {})},
        )
    progress.finish(done.rejected)
    return done


def _run(
    context: Context, stage: str, rows: pa.Table, thresholds: dict[str, float | None] | None, report: OnProgress
) -> StageOutput:
    config = context.config

    def reward() -> RewardModel | None:
        return context.reward if entry.scores(config) else None

    work: dict[str, Callable[[], StageOutput]] = {
        "sample": lambda: sample(rows, config.policy, context.policy, report),
        "score": lambda: score(rows, context.reward, report),
        "select": lambda: select(rows, Thresholds(**(thresholds or {})), report, config.policy.pick),
        "revise": lambda: revise(rows, config.reviser, context.prompts, context.reviser, report, context.choose),
        "filter": lambda: filter_revisions(rows, context.gates, context.tokenizer, reward(), report),
        "label": lambda: label(rows, config.labels, context.tokenizer.eos_id, report),
    }
    return work[stage]()
