"""Dask and Ray workers make the same bytes as threads, also when one of them dies."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.runners import share
from pipeline.config.settings import CurationConfig
from pipeline.curate import curate, in_threads
from pipeline.errors import ConfigError
from tests.conftest import ROOT, Silent, as_arguments
from tests.flows.server import PREFECT, ask, process, run, said_by, wait_for
from tests.test_run import files


@pytest.mark.slow
def test_ray_workers_of_a_deployment_give_the_same_bytes(
    settings: Callable[..., CurationConfig], worker: dict[str, str]
) -> None:
    pytest.importorskip("prefect_ray")
    plain = curate(settings("plain"), in_threads, Silent())
    config = settings("ray", run__runner="ray", run__workers=2)
    parameter = json.dumps(config.model_dump(mode="json"))
    said = run([*PREFECT, "deployment", "run", "curate/hh-rlhf", "--param", f"config={parameter}", "--watch"], worker)
    assert "Completed" in said
    # What is published is verified by another flow run, which may have started by now.
    mine = {"name": {"like_": "curate-"}}
    (flow_run,) = ask(worker, "flow_runs/filter", flow_runs=mine, sort="START_TIME_DESC", limit=1)
    logged = said_by(worker, flow_run["id"])
    assert logged and not [line for line in logged if "Prefect failed" in line]
    assert files(config.out) == files(plain.out)


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_the_shards_of_a_dead_worker_are_done_elsewhere(
    runner: str, settings: Callable[..., CurationConfig], prefect: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip(f"prefect_{runner}")
    plain = curate(settings("plain", source__shard_rows=8), in_threads, Silent())
    settings.server.engine.latency = 0.05  # type: ignore[attr-defined]
    config = settings("killed", run__runner=runner, run__workers=2, source__shard_rows=8)
    log = tmp_path / "build.log"
    command = [sys.executable, "-m", "pipeline", "build", *as_arguments(config)]
    with process(command, keyed(prefect), log) as child:
        wait_for(lambda: child.poll() is not None or list((config.out / "work" / "sample").glob("*.json")))
        os.kill(worker_of(child.pid, runner), signal.SIGKILL)
        assert child.wait(180) == 0, log.read_text()
    assert "Prefect failed" not in log.read_text()
    assert files(config.out) == files(plain.out)


def worker_of(parent: int, runner: str) -> int:
    """A process that works on shards: Dask's are children of `parent`, Ray's descend from it and bear the task's name (its
    agents, whose death ends the whole node, and idle workers bear names of their own)."""
    listed = subprocess.run(["ps", "-wweo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    lines = [line.split(None, 2) for line in listed.splitlines()[1:]]
    parents = {int(pid): int(ppid) for pid, ppid, _ in lines}

    def descends(pid: int) -> bool:
        return pid == parent or (pid in parents and descends(parents[pid]))

    mark = {"dask": r"spawn_main", "ray": r"^ray::(?!DashboardAgent|RuntimeEnvAgent|IDLE)"}[runner]
    return next(int(pid) for pid, _, command in lines if re.search(mark, command) and descends(int(pid)))


def keyed(environment: dict[str, str]) -> dict[str, str]:
    return {**environment, "OPENAI_API_KEY": os.environ["OPENAI_API_KEY"]}


def test_calls_and_money_are_shared_out(settings: Callable[..., CurationConfig]) -> None:
    config = settings(
        run__runner="dask",
        run__workers=3,
        policy__concurrency=16,
        policy__rpm=600,
        reviser__concurrency=3,
        run__budget_usd=10,
    )
    mine = share(config, spent=4.0)
    assert (mine.policy.concurrency, mine.policy.rpm, mine.reviser.concurrency) == (5, 200, 1)
    assert mine.run.budget_usd == 6
    assert share(settings(run__workers=3), 4.0) == settings(run__workers=3)
    with pytest.raises(ConfigError, match=r"takes 2 calls at a time here.*4 workers"):
        share(settings(run__runner="ray", run__workers=4, reviser__concurrency=2), 0)


@pytest.mark.slow
def test_workers_together_keep_the_budget(
    settings: Callable[..., CurationConfig], prefect: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("prefect_dask")
    server = settings.server  # type: ignore[attr-defined]
    prices = tmp_path / "prices.yaml"
    names = [f"openai/{role}@{server.openai_url}" for role in ("policy", "reviser")]
    price = {"input": 0, "cached_input": 0, "output": 1e4}
    prices.write_text(json.dumps({"as_of": "2026-01-01", "models": dict.fromkeys(names, price)}))
    config = settings("capped", run__runner="dask", run__workers=2, source__shard_rows=8, run__budget_usd=8)
    environment = {**prefect, "OPENAI_API_KEY": os.environ["OPENAI_API_KEY"], "FIGA_PRICES": str(prices)}
    command = [sys.executable, "-m", "pipeline", "build", *as_arguments(config)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    spent = sum(call.usage.output_tokens for call in server.calls if call.usage) / 100
    assert done.returncode == 3, done.stdout + done.stderr
    assert 0 < spent <= 8


def test_a_rewards_calls_are_shared_out_and_only_roles_that_are_asked_count(
    settings: Callable[..., CurationConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = {"run__runner": "ray", "run__workers": 4, "reward__concurrency": 8, "reward__rpm": 60}
    judge = settings(reward__model="openai/judge@http://127.0.0.1:9/v1", reward__prompts="mine", **asked)
    mine = share(judge, 0).reward
    assert (mine.concurrency, mine.rpm, mine.prompts) == (2, 15, str(tmp_path / "mine"))
    # The embedded head makes no calls.
    assert share(settings(**asked), 0).reward == settings(**asked).reward
    brought = settings(reviser__concurrency=2, source__enters_at="filter", **asked)
    assert share(brought, 0).reviser == brought.reviser
