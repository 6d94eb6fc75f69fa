"""Whole runs in batch mode: the same data as live, through a kill, an interrupt and a cancellation."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli.main import main
from pipeline.cli.terminal import Terminal
from pipeline.config.settings import CurationConfig
from pipeline.errors import ConfigError
from pipeline.models.batch.ledger import BatchLedger, unfinished
from pipeline.run import context
from pipeline.run.context import RowsInFlight
from tests.conftest import ROOT, as_arguments, child_environment
from tests.loopback import LoopbackServer
from tests.loopback.batches import BatchDesk
from tests.loopback.behaviours import pipeline as behaviour
from tests.test_run import run

Settings = Callable[..., CurationConfig]
QUICK = {
    f"{who}__{name}": value
    for who in ("policy", "reviser")
    for name, value in (("mode", "batch"), ("batch_poll_s", 0.1), ("batch_quiet_s", 0.5))
}


@pytest.fixture
def desk() -> BatchDesk:
    return BatchDesk()


@pytest.fixture
def server(loopback: Callable[..., LoopbackServer], desk: BatchDesk) -> LoopbackServer:
    return loopback(behaviour, extensions=desk.extensions)


@pytest.fixture
def at_desk(settings: Settings, server: LoopbackServer) -> Settings:
    """Configurations whose models are this server."""
    models = {
        "policy__model": f"openai/policy@{server.openai_url}",
        "reviser__model": f"openai/reviser@{server.openai_url}",
    }
    return lambda out, **flags: settings(out, **models, source__shard_rows=8, **flags)


def tables(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.glob("*/*.parquet")}


def test_batches_give_the_same_bytes_as_live_calls(at_desk: Settings, desk: BatchDesk, server: LoopbackServer) -> None:
    live = run(at_desk("live"))
    calls = server.completed
    batched = run(at_desk("batched", run__workers=2, **QUICK))
    assert tables(batched.out) == tables(live.out) and len(tables(live.out)) >= 2
    assert batched.calls == live.calls == calls == server.completed - calls
    # All five shards met in one batch a step: samples, diagnoses, revisions.
    assert len(desk.sizes) == 3 and desk.sizes[0] == 40
    # The mode is no part of what makes the data: nothing is asked again live.
    assert run(at_desk("batched")).already_done


def test_a_judge_in_batches_gives_the_same_bytes(at_desk: Settings, desk: BatchDesk, server: LoopbackServer) -> None:
    # The judge's marks are few: all rows are selected, whatever it says.
    judge = {
        "reward__model": f"openai/judge@{server.openai_url}",
        "reward__api_key_env": "OPENAI_API_KEY",
        **dict.fromkeys(("selection__eta1", "selection__eta2", "selection__eta3"), "off"),
    }
    live = run(at_desk("live", **judge))
    quick = {f"reward__{name.removeprefix('policy__')}": value for name, value in QUICK.items() if "policy" in name}
    batched = run(at_desk("batched", run__workers=2, **judge, **quick))
    assert tables(batched.out) == tables(live.out) and tables(live.out)
    # References and drafts of all shards met in one batch, all revisions in another.
    assert len(desk.sizes) == 2 and desk.sizes[0] >= 70
    assert live.manifest["calls"] == batched.manifest["calls"]


def test_the_filters_judge_in_batches_gives_the_same_bytes(
    at_desk: Settings, desk: BatchDesk, server: LoopbackServer
) -> None:
    judge = {"filter__judge": f"openai/judge@{server.openai_url}", "filter__judge_api_key_env": "OPENAI_API_KEY"}
    live = run(at_desk("live", **judge))
    quick = {f"reward__{name.removeprefix('policy__')}": value for name, value in QUICK.items() if "policy" in name}
    batched = run(at_desk("batched", run__workers=2, **judge, **quick))
    assert tables(batched.out) == tables(live.out) and len(tables(live.out)) >= 2
    # Both orders of all shards' pairs.
    assert desk.sizes == [live.manifest["calls"]["filter"]]


@pytest.mark.slow
def test_killed_interrupted_and_cancelled(
    at_desk: Settings, desk: BatchDesk, server: LoopbackServer, capsys: pytest.CaptureFixture[str]
) -> None:
    config = at_desk("batched", **QUICK)
    desk.open.clear()
    child = start(config)
    wait_for(lambda: len(desk.jobs) == 1 and desk.jobs[0].looks > 1)
    child.kill()
    child.communicate(timeout=20)
    # The next run finds that batch; it is interrupted when it has sent the diagnoses.
    desk.open.set()
    child = start(config)
    wait_for(lambda: bool(desk.jobs[0].ended))
    desk.open.clear()
    wait_for(lambda: len(desk.jobs) == 2 and desk.jobs[1].looks > 1)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == 130, errors
    assert "batches still at the provider: 1" in errors and f"figa cancel {config.out}" in errors
    assert "Traceback" not in errors
    assert main(["cancel", str(config.out), "--yes"]) == 0
    assert desk.cancelled == [desk.jobs[1].id] and f"cancelling {desk.jobs[1].id}" in capsys.readouterr().out
    desk.open.set()
    batched = run(config)
    assert main(["cancel", str(config.out)]) == 0
    live = run(at_desk("live"))
    assert tables(batched.out) == tables(live.out)
    assert not unfinished(config.out / "work")
    # Only what was cancelled was sent twice.
    twice = [custom_id for custom_id, count in desk.sent.items() if count > 1]
    assert sorted(twice) == sorted(sent.custom_id for sent in desk.jobs[1].requests)
    assert max(desk.sent.values()) == 2


def start(config: CurationConfig) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "build", *as_arguments(config), "--prefect", "off"],
        cwd=ROOT,
        env=child_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it didn't happen"
        time.sleep(0.02)


def test_the_display_shows_how_far_batches_are(at_desk: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    run_context = context.Context(at_desk("out", **QUICK))
    ledger = BatchLedger(run_context.work / "batches.db")
    ledger.intend("k", "openai/policy", ["a", "b", "c"])
    ledger.saw("k", "in_progress", 2)
    with Terminal() as screen, screen.watching(run_context):
        pass
    assert "batch 2/3 (in_progress)" in capsys.readouterr().out
    ledger.finish("k")
    with Terminal() as screen, screen.watching(run_context):
        pass
    assert "batch" not in capsys.readouterr().out


def test_a_run_tells_of_batches_that_no_row_asks_for(at_desk: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    config = at_desk("out")
    earlier = context.Context(config)
    # A run opens its journal first.
    assert earlier.journal.spent() == 0
    BatchLedger(earlier.work / "batches.db").intend("k", "openai/another", ["a", "b"], [0.25, 0.25])
    assert main(["build", *as_arguments(config), "--prefect", "off"]) == 0
    told = capsys.readouterr().err
    assert "batches still at the provider: 1, with 2 requests. No row asks for them" in told
    assert f"figa cancel {config.out}" in told


def test_batches_need_one_process(at_desk: Settings) -> None:
    with pytest.raises(ConfigError, match=r"run\.runner=dask and mode=batch"):
        context.check(at_desk("out", run__runner="dask", **QUICK))


def test_rows_in_flight_are_bounded() -> None:
    gate = RowsInFlight(10)
    entered = threading.Event()

    def large_shard() -> None:
        with gate.holding(50):
            entered.set()

    with gate.holding(6), gate.holding(4):
        waiting = threading.Thread(target=large_shard)
        waiting.start()
        assert not entered.wait(0.1)
    # Larger than the bound, it goes alone.
    assert entered.wait(10)
    waiting.join(10)
