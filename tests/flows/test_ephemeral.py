"""An ephemeral Prefect server ends with its run, however that ends, and one that doesn't start is one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config.settings import CurationConfig
from tests.conftest import ROOT, as_arguments, child_environment
from tests.flows.server import wait_for

Settings = Callable[..., CurationConfig]


def servers_of(parent: int) -> list[int]:
    """The children of a process that are Prefect servers."""
    listed = subprocess.run(["ps", "-wweo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    lines = [line.split(None, 2) for line in listed.splitlines()[1:]]
    return [int(pid) for pid, ppid, command in lines if int(ppid) == parent and "prefect.server.api.server" in command]


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{process}/stat").is_file() and ") Z " in Path(f"/proc/{process}/stat").read_text()


@pytest.mark.parametrize(
    "signals",
    [
        pytest.param([signal.SIGKILL], id="killed"),
        pytest.param([signal.SIGTERM], id="terminated", marks=pytest.mark.slow),
        pytest.param([signal.SIGINT, signal.SIGINT], id="ctrl-c twice", marks=pytest.mark.slow),
        pytest.param([], id="done", marks=pytest.mark.slow),
    ],
)
def test_the_server_ends_with_the_run(settings: Settings, tmp_path: Path, signals: list[int]) -> None:
    settings.server.engine.latency = 0.3 if signals else 0.0  # type: ignore[attr-defined]
    config = settings(policy__concurrency=1)
    environment = child_environment(PREFECT_HOME=str(tmp_path / "prefect"))
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "pipeline", "build", *as_arguments(config), "--prefect", "ephemeral"]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log) as run,
    ):
        (server,) = wait_for(lambda: servers_of(run.pid) or run.poll() is not None, 60)
        if signals:
            wait_for(lambda: list((config.out / "work" / "progress").glob("*/*")) or run.poll() is not None, 300)
        for number in signals:
            run.send_signal(number)
        code = run.wait(300)
    wait_for(lambda: gone(server), 30)
    said = (tmp_path / "log").read_text()
    assert "Traceback" not in said
    assert code in ([-signals[-1], 128 + signals[-1]] if signals else [0]), said


def test_one_that_does_not_start_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = child_environment(PREFECT_HOME=str(tmp_path / "file"))
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "pipeline", "build", "--source", "demo", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "--prefect", "ephemeral"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: --prefect ephemeral: ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
