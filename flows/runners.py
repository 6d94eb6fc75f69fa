"""What runs the shards: threads of the flow's process, or the workers of a Dask or Ray cluster.

With Dask and Ray every worker is a process with clients of its own. What the configuration allows is divided: each of W
workers gets 1/W of the calls at a time, of the fixed rate caps and of the money. So local models have no more servers on a
machine than with threads. On a standing cluster no more than W shards are out at a time, however large it is.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from prefect.context import FlowRunContext
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from pipeline import rewards
from pipeline.config.settings import CurationConfig, PolicySettings, ReviserSettings, RewardSettings
from pipeline.errors import ConfigError
from pipeline.models.factory import calls_at_a_time
from pipeline.storage.remote import RemotePath

ModelSettings = PolicySettings | ReviserSettings | RewardSettings


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


def _share_calls(config: CurationConfig, role: str) -> ModelSettings:
    settings: ModelSettings = getattr(config, role)
    called: Sequence[ModelSettings] = [settings]
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
