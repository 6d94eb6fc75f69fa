"""Who works on the shards: threads of the flow's process, or the workers of a Dask or Ray cluster.

With Dask and Ray every worker is a process with clients of its own. What the configuration allows in all is shared out:
each of W workers gets 1/W of the calls at a time; the budget is kept by the journal that they share.
"""

from __future__ import annotations

from typing import Any

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from pipeline.config import CurationConfig
from pipeline.errors import ConfigError


def task_runner(config: CurationConfig) -> TaskRunner[Any]:
    """The runner that `run.runner` names. Raises ConfigError when its package is not installed."""
    run = config.run
    if run.runner == "threads":
        return ThreadPoolTaskRunner(max_workers=run.workers)
    try:
        if run.runner == "dask":
            from prefect_dask import DaskTaskRunner

            cluster = {"n_workers": run.workers, "threads_per_worker": 1, "dashboard_address": None}
            runner: TaskRunner[Any] = DaskTaskRunner(
                address=run.runner_address, cluster_kwargs=None if run.runner_address else cluster
            )
        else:
            from prefect_ray import RayTaskRunner

            local = {"num_cpus": run.workers, "include_dashboard": False, "configure_logging": False}
            runner = RayTaskRunner(address=run.runner_address, init_kwargs=None if run.runner_address else local)
    except ImportError:
        raise ConfigError(
            f"run.runner={run.runner} needs a package that is not installed: pip install 'figa-pipeline[{run.runner}]'"
        ) from None
    return runner


def share(config: CurationConfig) -> CurationConfig:
    """The configuration of one worker: its part of the calls at a time. Raises ConfigError when there are too few."""
    run = config.run
    if run.runner == "threads":
        return config
    parts = {}
    for role in ("policy", "reviser"):
        settings = getattr(config, role)
        if settings.concurrency < run.workers:
            raise ConfigError(
                f"{role}.concurrency is {settings.concurrency}, but run.runner={run.runner} has {run.workers} workers "
                f"that share it: lower run.workers or raise {role}.concurrency"
            )
        parts[role] = settings.model_copy(update={"concurrency": settings.concurrency // run.workers})
    return config.model_copy(update=parts)
