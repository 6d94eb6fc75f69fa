"""The run, as the paper's figure reads. What executes the shards (threads, Prefect tasks) is handed in.

source → plan → sample → score → select → revise → filter → label → publish
                └── phase 1 ──┘   └───────── phase 2 ─────────┘
                        η1 η2 η3 resolved between the two
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline import sources
from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import CurationConfig
from pipeline.models import event_loop
from pipeline.models.local import catalog
from pipeline.run import context, record
from pipeline.run.context import Context
from pipeline.run.inputs import run_inputs
from pipeline.run.plan import plan_shards, resolve_entry_stage
from pipeline.run.publish import publish, standing, unpriced
from pipeline.run.shards import context_of, resolve_thresholds, run_stages
from pipeline.schema import digest
from pipeline.stages import select
from pipeline.stages.table import Thresholds, short_digests
from pipeline.storage.lock import run_lock


class Executor(Protocol):
    """Runs the given stages on every shard and returns when all are done."""

    def __call__(
        self, config: CurationConfig, shards: int, stages: tuple[str, ...], thresholds: Thresholds | None
    ) -> None: ...


class Reporter(Protocol):
    """Sees the run: warnings, downloads, and the stages while they work."""

    def warn(self, message: str) -> None: ...

    def download(self, what: str, done: int, total: int) -> None: ...

    def watching(self, context: Context) -> AbstractContextManager[None]: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """The manifest of the published data set and the calls that this run made, those without an answer included.

    context: None when nothing was to do.
    """

    out: Path
    manifest: dict[str, Any]
    calls: int
    context: Context | None

    @property
    def already_done(self) -> bool:
        return self.context is None


def curate(config: CurationConfig, execute: Executor, reporter: Reporter) -> Outcome:
    """Bring the output folder to what `config` describes, doing only what isn't done. Raises CurationError."""
    source = sources.resolve_source(config.source, reporter.warn)
    config = resolve_entry_stage(config, sources.open_adapters(config.source, source, warn=lambda told: None))
    context.check(config)
    with run_lock(config.out, reporter.warn), rare_collections():
        inputs = run_inputs(config, source.digest)
        wanted = digest(*inputs.values())
        found = standing(config.out, wanted, reporter.warn)
        if found:
            return Outcome(config.out, found, 0, None)
        plan = plan_shards(config, source, config.out / "work", reporter.warn)
        unknown = unpriced(config)
        if unknown and config.run.budget_usd is not None:
            reporter.warn(
                f"what {', '.join(unknown)} answered in this folder before the price was known counts as nothing"
            )
        record.remember(config, wanted, short_digests(inputs), unknown)
        config = with_local_models(config, reporter)
        run = context_of(config, anew=True)
        if run.journal.warning:
            reporter.warn(run.journal.warning)
        before = run.journal.made()
        with reporter.watching(run):
            if config.needs_generation:
                execute(config, plan.shards, ("sample", "score"), None)
                thresholds = resolve_thresholds(config, run.work, plan.shards)
                execute(config, plan.shards, ("select", "revise", "filter", "label"), thresholds)
            else:
                thresholds = select.OFF.as_dict()
                execute(config, plan.shards, config.stages[1:], thresholds)
        published = publish(run, source, plan, thresholds, wanted)
        if published["unanswered"]:
            reporter.warn(
                f"{published['unanswered']} rows were rejected only because a provider failed or did not answer "
                "(see rejected/); the same command again asks for these alone"
            )
        for model in run.models:
            if model.refusal:
                reporter.warn(
                    f"{model.name} refused requests (bad_request in rejected/), the last with {model.refusal}. A server that "
                    "takes no JSON schema needs reviser.structured=false, a model that takes no temperature temperature=null, "
                    "a judge that gives no token probabilities reward.logprobs=false"
                )
        return Outcome(config.out, published, run.journal.made() - before, run)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Rows hold no reference cycles, and looking for some after every 700 of them takes a tenth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def in_threads(config: CurationConfig, shards: int, stages: tuple[str, ...], thresholds: Thresholds | None) -> None:
    """The plain executor: a few shards at a time in threads of this process; the first failure stops the rest."""
    run = context_of(config)
    run.stopped.clear()
    with ThreadPoolExecutor(config.shards_at_a_time, "shard") as pool:
        futures = [pool.submit(run_stages, config, shard, stages, thresholds) for shard in range(shards)]
        try:
            ended = wait(futures, return_when=FIRST_EXCEPTION).done
            for future in futures:
                if future in ended:
                    future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            run.stopped.set()
            event_loop.cancel_all()
            raise


def with_local_models(config: CurationConfig, reporter: Reporter) -> CurationConfig:
    """Fetch the embedded models that the run needs; the reviser may be replaced by its smaller stand-in, announced."""
    from pipeline.models.local.download import fetch, fetch_or_fallback

    policy, reviser = ModelSpec.parse(config.policy.model), ModelSpec.parse(config.reviser.model)
    asked = config.needs_generation
    if policy.provider == "local" and (asked or config.labels.tokenizer == "policy"):
        fetch(catalog.get(policy.name), progress=reporter.download, warn=reporter.warn)
    if asked and reviser.provider == "local":
        model, _ = fetch_or_fallback(reviser.name, progress=reporter.download, warn=reporter.warn)
        settings = config.reviser.model_copy(update={"model": f"local/{model.name}"})
        config = config.model_copy(update={"reviser": settings})
    return config
