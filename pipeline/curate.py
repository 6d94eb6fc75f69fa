"""The run, as the paper's figure reads. What executes the shards (threads, Prefect tasks) is a parameter.

source → plan → sample → score → select → revise → filter → label → publish
                └── phase 1 ──┘   └───────── phase 2 ─────────┘
                        η1 η2 η3 resolved between the two
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import CurationConfig
from pipeline.labels.loading import is_shipped
from pipeline.models import event_loop
from pipeline.models.local import catalog, download
from pipeline.run import record
from pipeline.run.context import Context, policy_tokenizer
from pipeline.run.plan import FIRST_ROWS, first_step, next_step, open_source, plan_shards
from pipeline.run.pricing import unpriced
from pipeline.run.probe import any_rows, probe, warn_of_changes
from pipeline.run.publish import find_current, publish
from pipeline.run.shards import context_of, raise_if_all_failed, resolve_thresholds, run_stages
from pipeline.schema import digest
from pipeline.stages import select
from pipeline.stages.select import Thresholds
from pipeline.stages.table import short_digests
from pipeline.storage import stopping
from pipeline.storage.lock import run_lock

# Runs stages on every shard, `(config, shards, stages, thresholds)`, and returns when all are done.
Executor = Callable[[CurationConfig, int, tuple[str, ...], Thresholds | None], None]
T = TypeVar("T")


class Step(Protocol):
    """Takes a step of the figure that is not done shard by shard: calls `action`, and returns what it returns."""

    def __call__(self, name: str, action: Callable[[], T], /) -> T: ...


def at_once(name: str, action: Callable[[], T]) -> T:
    return action()


_PHASES = ("sample", "score"), ("select", "revise", "filter", "label")


class Reporter(Protocol):
    """Shows the run: warnings, downloads, and the stages while they work."""

    def warn(self, message: str) -> None: ...

    def download(self, what: str, done: int, total: int) -> None: ...

    def watching(self, context: Context) -> AbstractContextManager[None]: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """The manifest of the data set, and the calls that this run sent. context: None when nothing was to do."""

    out: Path
    manifest: dict[str, Any]
    calls: int
    context: Context | None

    @property
    def already_done(self) -> bool:
        return self.context is None


def curate(config: CurationConfig, execute: Executor, reporter: Reporter, step: Step = at_once) -> Outcome:
    """Bring the output folder to what `config` describes, doing only what isn't done. Raises CurationError."""
    config, source, adapters = step("source", partial(open_source, config, reporter.warn))
    with run_lock(config.out, reporter.warn):
        inputs = record.run_inputs(config, source.digest)
        run_digest = digest(*inputs.values())
        if current := find_current(config.out, run_digest, reporter.warn):
            return Outcome(config.out, current, 0, None)
        rows = first_step(config)
        plan = step("plan", partial(plan_shards, config, source, adapters, config.out / "work", reporter.warn, rows))
        names = unpriced(config)
        record.remember(config, run_digest, short_digests(inputs), names)
        if names and config.run.budget_usd is not None:
            reporter.warn(
                f"responses of {', '.join(names)} from before the price was known count as nothing against the budget"
            )
        config = _with_local_models(config, reporter)
        run = context_of(config, rebuild=True)
        if run.journal.warning:
            reporter.warn(run.journal.warning)
        calls_before = run.journal.all_calls()
        if any_rows(run.work, plan.shards):
            for _, probed, _ in probe(run, reporter.warn):
                for model in run.models:
                    model.thinks |= probed.thinks and model.name == probed.name
        with reporter.watching(run), run.paid.recorded():
            thresholds = _run_stages(config, execute, step, run.work, plan.shards, reporter.warn)
            while (rows := next_step(config, run.work, plan.shards, rows)) is not None:
                before = plan
                plan = step("plan", partial(plan_shards, config, source, adapters, run.work, reporter.warn, rows))
                if plan.rows == before.rows:
                    reporter.warn(f"the source, or its limit, ends before {config.source.target} pairs came out")
                    break
                thresholds = _run_stages(config, execute, step, run.work, plan.shards)
        manifest = step("publish", partial(publish, run, source, plan, thresholds, run_digest))
        _warn_of_failures(manifest, run, reporter)
        return Outcome(config.out, manifest, run.journal.all_calls() - calls_before, run)


def _run_stages(
    config: CurationConfig,
    execute: Executor,
    step: Step,
    work: Path,
    shards: int,
    warn: Callable[[str], None] = lambda text: None,
) -> Thresholds:
    """Run both phases; returns the thresholds that rows were selected by."""

    def phase(stages: tuple[str, ...], thresholds: Thresholds | None) -> None:
        execute(config, shards, stages, thresholds)
        raise_if_all_failed(work, stages, shards)

    if not config.needs_generation:
        phase(config.stages[1:], select.OFF)
        return select.OFF
    phase(_PHASES[0], None)
    thresholds = step("thresholds", partial(resolve_thresholds, config, work, shards))
    if config.source.target and any(isinstance(getattr(config.selection, eta), str) for eta in thresholds):
        fixed = ", ".join(f"{eta} {limit:.3f}" for eta, limit in thresholds.items() if limit is not None)
        warn(f"thresholds by the first {FIRST_ROWS} rows of the source, for all that follow: {fixed}")
    phase(_PHASES[1], thresholds)
    return thresholds


def _warn_of_failures(manifest: dict[str, Any], run: Context, reporter: Reporter) -> None:
    if manifest["unanswered"]:
        reporter.warn(
            f"{manifest['unanswered']} rows were rejected only because a provider failed or did not respond "
            "(see rejected/); the same command again calls for these alone"
        )
    for model in run.models:
        warn_of_changes(model, reporter.warn)
        if model.breaker.refusal:
            reporter.warn(
                f"{model.name} refused requests (bad_request in rejected/), the last with {model.breaker.refusal}"
            )


def in_threads(config: CurationConfig, shards: int, stages: tuple[str, ...], thresholds: Thresholds | None) -> None:
    """The plain executor: a few shards at a time in threads of this process; the first failure stops the rest."""
    run = context_of(config)
    run.stopped.clear()
    with ThreadPoolExecutor(config.shards_at_a_time, "shard") as pool:
        futures = [pool.submit(run_stages, config, shard, stages, thresholds) for shard in range(shards)]
        try:
            with stopping.waking(lambda: _stop(run)):
                for future in as_completed(futures):
                    future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            _stop(run)
            raise


def _stop(run: Context) -> None:
    """End what is in flight, and let no shard begin a further stage."""
    run.stopped.set()
    event_loop.cancel_all()


def _with_local_models(config: CurationConfig, reporter: Reporter) -> CurationConfig:
    """Download the embedded models that the run needs; returns the configuration with the reviser that could be had."""
    policy, reviser = ModelSpec.parse(config.policy.model), ModelSpec.parse(config.reviser.model)
    if config.needs_generation and policy.provider == "local":
        download.fetch(catalog.get(policy.name), progress=reporter.download, warn=reporter.warn)
    elif config.labels.tokenizer == "policy" and not is_shipped(name := policy_tokenizer(config).name):
        download.fetch(catalog.get(name), progress=reporter.download, warn=reporter.warn)
    if config.needs_generation and reviser.provider == "local":
        model, _ = download.fetch_or_fallback(reviser.name, progress=reporter.download, warn=reporter.warn)
        settings = config.reviser.model_copy(update={"model": f"local/{model.name}"})
        config = config.model_copy(update={"reviser": settings})
        if config.filter.judge == str(reviser):
            config = config.model_copy(update={"filter": config.filter.model_copy(update={"judge": settings.model})})
    if config.judge and (judge := ModelSpec.parse(config.judge.model)).provider == "local":
        download.fetch(catalog.get(judge.name), progress=reporter.download, warn=reporter.warn)
    return config
