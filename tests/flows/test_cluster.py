"""A standing cluster: its workers were there before the run, in a folder of their own, and stay behind it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from flows import lease
from pipeline.config.settings import CurationConfig
from pipeline.curate import curate, in_threads
from pipeline.dataset.reader import read_manifest
from pipeline.run.shards import context_of
from tests.conftest import Silent, as_arguments, child_environment
from tests.flows.server import free_port, process, wait_for
from tests.test_run import files


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Dask scheduler with two workers, each in a folder of its own, as on machines of their own."""
    pytest.importorskip("prefect_dask")
    port = free_port()
    address, dask = f"tcp://127.0.0.1:{port}", [sys.executable, "-m", "dask"]
    worker = [*dask, "worker", address, "--nthreads", "1", "--no-dashboard"]
    scheduler = [*dask, "scheduler", "--port", str(port), "--no-dashboard"]
    with ExitStack() as stack:
        for command in (scheduler, worker, worker):
            folder = tmp_path_factory.mktemp("machine")
            environment = child_environment(OPENAI_API_KEY="sk-loopback", HOME=str(folder))
            stack.enter_context(process(command, environment, folder / "log"))
        yield address


def build(config: CurationConfig) -> list[str]:
    return [sys.executable, "-m", "pipeline", "build", *as_arguments(config), "--prefect", "server"]


def keyed(environment: dict[str, str]) -> dict[str, str]:
    return {**environment, "OPENAI_API_KEY": os.environ["OPENAI_API_KEY"]}


@pytest.mark.slow
@pytest.mark.parametrize("journal", ["auto", "own"])
def test_a_standing_cluster_gives_the_same_bytes(
    settings: Callable[..., CurationConfig],
    prefect: dict[str, str],
    cluster: str,
    monkeypatch: pytest.MonkeyPatch,
    journal: str,
) -> None:
    plain = curate(settings("plain"), in_threads, Silent())
    # A relative folder is the caller's, wherever the workers are.
    monkeypatch.chdir(plain.out.parent)
    changes = {"run__runner": "dask", "run__runner_address": cluster, "run__journal": journal}
    config = settings("standing", **changes, output__dir="standing")
    done = subprocess.run(build(config), env=keyed(prefect), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0 and "Prefect failed" not in done.stdout, done.stdout + done.stderr
    standing = plain.out.parent / "standing"
    assert files(standing) == files(plain.out)
    # The kind of journal that machines can share leaves no log behind.
    assert not (standing / "work" / "journal.db-wal").exists()
    # This disk's locks hold.
    assert (standing / "work" / "journals").exists() == (journal == "own")
    assert read_manifest(standing)["calls"] == plain.manifest["calls"]
    # Nothing is paid twice, whoever paid.
    sent = settings.server.completed  # type: ignore[attr-defined]
    again = curate(settings("standing", output__dir=str(standing), filter__max_distance=0.79), in_threads, Silent())
    assert again.manifest["calls"] == plain.manifest["calls"]
    assert settings.server.completed == sent  # type: ignore[attr-defined]


@pytest.mark.slow
def test_workers_stop_their_calls_when_their_run_is_gone(
    settings: Callable[..., CurationConfig], prefect: dict[str, str], cluster: str, tmp_path: Path
) -> None:
    config = settings("left", run__runner="dask", run__runner_address=cluster, policy__concurrency=2)
    server = settings.server  # type: ignore[attr-defined]
    server.engine.latency = 0.5
    before = server.completed
    with process(build(config), keyed(prefect), tmp_path / "build.log") as child:
        wait_for(lambda: child.poll() is not None or server.completed > before + 2)
        child.terminate()
        assert child.wait(30) == 143, (tmp_path / "build.log").read_text()
    time.sleep(2.5)
    settled = server.completed
    time.sleep(2)
    assert server.completed == settled < before + 30, "calls went on after the run had ended"


@pytest.mark.slow
def test_money_is_not_shared_out_among_fewer_workers_than_there_are(
    settings: Callable[..., CurationConfig], prefect: dict[str, str], cluster: str
) -> None:
    config = settings(
        "rich",
        run__runner="dask",
        run__runner_address=cluster,
        run__workers=1,
        run__budget_usd=1,
        policy__price="1,1",
        reviser__price="1,1",
    )
    done = subprocess.run(build(config), env=keyed(prefect), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "set run.workers to at least 2" in done.stderr


def test_a_lease_that_is_gone_or_silent_stops_the_worker(
    settings: Callable[..., CurationConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_EVERY_S", 0.05)
    monkeypatch.setattr(lease, "_SILENCE_S", 0.5)
    config = settings(run__runner="dask")
    with lease.held(config) as run, lease.obeyed(config, run):
        time.sleep(1)
        assert not context_of(config).stopped.is_set()
    for left in (None, f"{run} 7", "another/1 7"):
        path = config.out / "work" / "run.alive"
        path.unlink(missing_ok=True)
        if left:
            path.write_text(left)
        with lease.obeyed(config, run):
            context_of(config).stopped.clear()
            assert context_of(config).stopped.wait(5)
