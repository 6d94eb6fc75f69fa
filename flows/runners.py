"""What runs the shards: threads of the flow's process, or the workers of a Dask or Ray cluster.

With Dask and Ray every worker is a process with clients of its own. What the configuration allows is divided: each of W
workers gets 1/W of the calls at a time, of the fixed rate caps and of the money. So local models have no more servers on a
machine than with threads. On a standing cluster no more than W shards are out at a time, however large it is. Whether its
workers can share one journal is found by trying the disk's locks, not by hope.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from pipeline import rewards
from pipeline.config.settings import CurationConfig, RewardSettings
from pipeline.errors import ConfigError
from pipeline.models.factory import calls_at_a_time
from pipeline.models.journal_files import locks_hold
from pipeline.run.pricing import Settings
from pipeline.storage.remote import RemotePath


@contextmanager
def running_on(config: CurationConfig) -> Iterator[None]:
    """Make the current flow run submit its tasks to the runner that the configuration names.

    A flow's own runner is chosen before its parameters are known, and a deployment takes no other.
    """
    current = cast("FlowRunContext", FlowRunContext.get())
    with task_runner(config) as runner, current.model_copy(update={"task_runner": runner}):
        yield


def task_runner(config: CurationConfig) -> TaskRunner[Any]:
    """The runner that `run.runner` names. Raises ConfigError when its package is not installed."""
    run, address = config.run, config.run.runner_address
    if run.runner == "threads":
        return ThreadPoolTaskRunner(max_workers=config.shards_at_a_time)
    try:
        if run.runner == "dask":
            from prefect_dask import DaskTaskRunner

            cluster = {"n_workers": run.workers, "threads_per_worker": 1, "dashboard_address": None}
            return cast("TaskRunner[Any]", DaskTaskRunner(address=address, cluster_kwargs=None if address else cluster))
        from prefect_ray import RayTaskRunner

        local = {"num_cpus": run.workers, "include_dashboard": False, "configure_logging": False}
        return cast("TaskRunner[Any]", RayTaskRunner(address=address, init_kwargs=None if address else local))
    except ImportError:
        raise ConfigError(
            f"run.runner={run.runner} needs a package that is not installed: pip install -e '.[{run.runner}]'"
        ) from None


@task(name="probe", task_run_name="probe", cache_policy=NO_CACHE, persist_result=False)
def try_lock(path: Path) -> bool | None:
    """Run by a worker while the flow's process holds the lock."""
    return locks_hold(path)


def workers_journal(config: CurationConfig, warn: Callable[[str], None]) -> str:
    """`shared`, or `own` where the locks of the output folder's disk don't hold. ConfigError where a worker doesn't see it."""
    run, out = config.run, config.out
    if run.journal != "auto" or run.runner == "threads" or not run.runner_address or isinstance(out, RemotePath):
        return "shared" if run.journal == "auto" else run.journal
    path = (out / "work" / "locks.db").absolute()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        tries = [try_lock.submit(path) for _ in range(run.workers)]
        held = [each.result() for each in tries]
    with suppress(OSError):
        path.unlink()
    if None in held:
        where = f"a worker at {run.runner_address} finds no {path.parent}"
        raise ConfigError(f"output.dir {out}: {where}; it must be on a disk that all machines share, at the same path")
    if all(held):
        return "shared"
    warn(f"{out}: locks of its disk don't hold between machines, so each worker keeps a journal of its own")
    return "own"


def share(config: CurationConfig, spent: float, journal: str = "shared") -> CurationConfig:
    """The configuration of one worker: its part of the calls at a time, and of the money that is left.

    spent: US dollars spent in the folder so far. A worker adds what it spends to what was spent when it began, so that all
    together never pass the cap, also when a dead worker is replaced; one may stop below it. Folders become absolute: a
    worker may have been started anywhere. Raises ConfigError when there are fewer calls at a time than workers, or more
    workers than the money is divided among.
    """
    run = config.run
    if run.runner == "threads":
        return config
    _check_cluster(config, journal)
    roles = ["policy", "reviser"] * config.needs_generation + ["reward"] * bool(config.needs_rewards or config.judge)
    parts: dict[str, Any] = {role: _share_calls(config, role) for role in roles}
    parts["output"] = config.output.model_copy(update={"dir": str(config.out.absolute())})
    for role in parts.keys() & {"reviser", "reward"}:
        if prompts := parts[role].prompts:
            parts[role] = parts[role].model_copy(update={"prompts": str(Path(prompts).absolute())})
    parts["run"] = run.model_copy(update={"journal": journal})
    if run.budget_usd is not None:
        budget = spent + max(0.0, run.budget_usd - spent) / run.workers
        parts["run"] = parts["run"].model_copy(update={"budget_usd": budget})
    return config.model_copy(update=parts)


def _check_cluster(config: CurationConfig, journal: str) -> None:
    run, tokenizer = config.run, Path(config.labels.tokenizer)
    if journal == "own" and run.budget_usd is not None:
        raise ConfigError(
            f"run.budget_usd: each worker that writes to {config.out} keeps a journal of its own, so their sum is unknown; use "
            "a disk whose locks hold between machines, or drop the budget"
        )
    if not run.runner_address:
        return
    if tokenizer.is_dir() and not tokenizer.is_absolute():
        raise ConfigError(
            f"labels.tokenizer {tokenizer}: the workers at {run.runner_address} may run in another folder; set its whole "
            f"path, {tokenizer.absolute()}"
        )
    if run.budget_usd is None:
        return
    if isinstance(config.out, RemotePath):
        raise ConfigError(
            f"run.budget_usd: workers at {run.runner_address} that write to {config.out} keep a journal on each machine, so "
            "their sum is unknown; use a shared disk for output.dir, or drop the budget"
        )
    size = _cluster_size(run.runner)
    if size > run.workers:
        raise ConfigError(
            f"run.workers is {run.workers}, but the cluster at {run.runner_address} has {size} workers, any of which may get "
            f"shards: a budget is divided among all, so set run.workers to at least {size}"
        )


def _cluster_size(runner: str) -> int:
    """Processes that may work on shards, now."""
    if runner == "dask":
        context = cast("FlowRunContext", FlowRunContext.get())
        return len(cast("Any", context.task_runner).client.scheduler_info(n_workers=-1)["workers"])
    import ray

    return int(
        ray.cluster_resources().get("CPU", 0)  # type: ignore[no-untyped-call]
    )


def _share_calls(config: CurationConfig, role: str) -> Settings:
    settings: Settings = getattr(config, role)
    called: Sequence[Settings] = [settings]
    if isinstance(settings, RewardSettings):
        members = rewards.member_settings(settings)
        called = [member for member in members if rewards.reward_kind(member.model) in ("judge", "server")]
        # It is called as the reward's settings say.
        called += [config.judge] if config.judge else []
    if not called:
        return settings
    workers, most = config.run.workers, min(map(calls_at_a_time, called))
    if most < workers:
        raise ConfigError(
            f"{role}.model {settings.model} takes {most} calls at a time here, but run.runner={config.run.runner} has "
            f"{workers} workers that share them: lower run.workers, or raise {role}.concurrency if that is what limits"
        )
    caps = {name: value / workers for name in ("rpm", "tpm") if (value := getattr(settings, name))}
    return settings.model_copy(update={"concurrency": most // workers, **caps})
