"""Dask and Ray workers make the same bytes as threads, also when one of them dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.runners import share
from pipeline.config import CurationConfig
from pipeline.curate import curate, in_threads
from pipeline.errors import ConfigError
from tests.conftest import ROOT, Silent, as_arguments
from tests.flows.server import run
from tests.test_run import files


@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_workers_in_other_processes_give_the_same_bytes(
    runner: str, settings: Callable[..., CurationConfig], prefect: dict[str, str]
) -> None:
    pytest.importorskip(f"prefect_{runner}")
    plain = curate(settings("plain"), in_threads, Silent())
    config = settings(runner, run__runner=runner, run__workers=2)
    environment = {**prefect, "OPENAI_API_KEY": os.environ["OPENAI_API_KEY"]}
    said = run([sys.executable, "-m", "pipeline.build", *as_arguments(config)], environment)
    assert "Prefect failed" not in said, said
    assert files(config.out) == files(plain.out)


def test_the_shards_of_a_dead_dask_worker_are_done_elsewhere(
    settings: Callable[..., CurationConfig], prefect: dict[str, str]
) -> None:
    pytest.importorskip("prefect_dask")
    plain = curate(settings("plain", source__shard_rows=8), in_threads, Silent())
    config = settings("killed", run__runner="dask", run__workers=2, source__shard_rows=8)
    environment = {**prefect, "OPENAI_API_KEY": os.environ["OPENAI_API_KEY"]}
    command = [sys.executable, "-m", "pipeline.build", *as_arguments(config)]
    child = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while not list((config.out / "work" / "sample").glob("*.json")):
            assert time.monotonic() < deadline and child.poll() is None
            time.sleep(0.05)
        os.kill(dask_worker_of(child.pid), signal.SIGKILL)
        said, _ = child.communicate(timeout=120)
    finally:
        child.kill()
    assert child.returncode == 0 and b"Prefect failed" not in said, said.decode()
    assert files(config.out) == files(plain.out)


def dask_worker_of(parent: int) -> int:
    """A process that works for `parent`: Dask's workers are children that its nannies spawned in this process tree."""
    listed = subprocess.run(["ps", "-wweo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    children = [line.split(None, 2) for line in listed.splitlines()[1:]]
    return next(int(pid) for pid, ppid, args in children if int(ppid) == parent and "spawn_main" in args)


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
    command = [sys.executable, "-m", "pipeline.build", *as_arguments(config)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    spent = sum(call.usage.output_tokens for call in server.calls if call.usage) / 100
    assert done.returncode == 3, done.stdout + done.stderr
    assert 0 < spent <= 8
