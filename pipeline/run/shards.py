"""Run one stage on one shard: read its input, do it unless it is done, commit the result."""

import itertools
import json
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError
from pathlib import Path

from pipeline.config.settings import CurationConfig
from pipeline.errors import ProviderStopped, StorageError
from pipeline.models.provider_errors import GO_ON, cause_of, describe
from pipeline.run import plan
from pipeline.run.context import Context
from pipeline.run.progress import StageProgress
from pipeline.schema import digest
from pipeline.stages import select
from pipeline.stages.select import Thresholds
from pipeline.stages.table import BY_NAME
from pipeline.storage import stage_files
from pipeline.storage.stage_files import StageFile

# The least recently used first.
_contexts: dict[str, Context] = {}
_MOST_CONTEXTS = 2
_contexts_lock = threading.Lock()


def context_of(config: CurationConfig, *, rebuild: bool = False) -> Context:
    """This process's context of a run, created once; `rebuild` it for a new run, as the files of models may have changed."""
    with _contexts_lock:
        key = config.model_dump_json()
        context = _contexts.pop(key, None)
        if context is None or rebuild:
            context = Context(config)
            # Before the budget is what the journal knows. A cluster's worker may have a journal of its own.
            if rebuild and (missing := context.paid.missing()):
                context.journal.warning = "; ".join(filter(None, [context.journal.warning, missing]))
            context.prepare()
        while len(_contexts) >= _MOST_CONTEXTS:
            del _contexts[next(iter(_contexts))]
        _contexts[key] = context
        return context


def forget_contexts() -> None:
    """Drop all contexts, for a process that works for one run after another."""
    with _contexts_lock:
        _contexts.clear()


def run_stages(
    config: CurationConfig, shard: int, stages: tuple[str, ...], thresholds: Thresholds | None = None
) -> int:
    """Bring a shard through consecutive stages; returns the rows that came out. Arguments can go to another process."""
    context = context_of(config)
    file = None
    for stage in stages:
        file = run_stage(context, shard, stage, thresholds)
    return file.rows if file else 0


def run_stage(context: Context, shard: int, stage: str, thresholds: Thresholds | None) -> StageFile:
    """The stage's file for this shard; written unless it is there with the wanted digest and no unanswered rows."""
    stages, definition = context.config.stages, BY_NAME[stage]
    previous = stages[stages.index(stage) - 1]
    work = context.work
    source = stage_files.inspect(work, previous, shard)
    if source is None:
        raise StorageError(f"{stage_files.file_path(work, previous, shard)}: gone or damaged; run again to rebuild it")
    inputs = definition.inputs(context, thresholds)
    wanted = digest(definition.digest(inputs), source.content)
    done = stage_files.inspect(work, stage, shard)
    progress = StageProgress(work, stage, shard, source.rows)
    if done is None or done.digest != wanted or done.unanswered:
        with context.place(stage, source.rows):
            if context.stopped.is_set():
                raise CancelledError
            rows = stage_files.read(source)
            output = definition.run(rows, context, thresholds or {}, progress.add)
        done = stage_files.commit(
            work,
            stage,
            shard,
            wanted,
            output.rows,
            stage_files.reject_table(stage, rows, output.rejects),
            unanswered=sum(reject.unanswered for reject in output.rejects),
            notes=output.notes,
            inputs=definition.short_digests(inputs, source.content),
        )
        if context.config.run.runner == "threads":
            context.paid.record()
    progress.finish(done.rejected)
    return done


def raise_if_all_failed(work: Path, stages: Sequence[str], shards: int) -> None:
    """Raises ProviderStopped when all calls of a stage failed alike: a data set without rows would say that all is well.

    The stage is done again by the next run.
    """
    for stage in stages:
        files = stage_files.inspect_all(work, stage, shards)
        if any(file.rows for file in files) or not any(file.rejected for file in files):
            continue
        causes: set[str | None] = set()
        for shard in range(shards):
            for row in stage_files.read_rejects(work, stage, shard).select(["reason", "evidence"]).to_pylist():
                evidence = json.loads(row["evidence"])
                causes.add(cause_of(row["reason"], evidence))
                said = f"{evidence.get('model', '')}: {describe(row['reason'], evidence)}"
            if len(causes) > 1 or None in causes:
                return
        for shard in range(shards):
            stage_files.forget(work, stage, shard)
        raise ProviderStopped(f"all rows of {stage} failed alike, at {said}. {GO_ON}")


def resolve_thresholds(config: CurationConfig, work: Path, shards: int) -> Thresholds:
    """η1 η2 η3 as numbers, over the scores of all shards, or with a target of the first ones, up to one with scores."""
    files = stage_files.inspect_all(work, "score", shards)
    if config.source.target:
        sizes, scored = plan.shard_sizes(config), itertools.accumulate(file.rows for file in files)
        rows = zip(itertools.accumulate(sizes), scored, strict=False)
        files = files[: 1 + sum(read < plan.FIRST_ROWS or not with_scores for read, with_scores in rows)]
    tables = (select.picked(stage_files.read(file, select.SCORES), config.policy.pick) for file in files)
    return select.resolve(config.selection, tables)
