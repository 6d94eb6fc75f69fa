"""SIGTERM and Ctrl-C end a run within five seconds, with what was answered kept; a second Ctrl-C ends it at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from pipeline.config.settings import CurationConfig
from pipeline.models.journal import Journal
from tests.conftest import ROOT, as_arguments, child_environment

Settings = Callable[..., CurationConfig]


@pytest.mark.parametrize(
    ("signals", "code"),
    [
        pytest.param([signal.SIGTERM], 143, id="terminated"),
        pytest.param([signal.SIGINT, signal.SIGINT], 130, id="ctrl-c twice", marks=pytest.mark.slow),
    ],
)
def test_a_signalled_run_ends_soon_and_goes_on(settings: Settings, signals: list[int], code: int) -> None:
    server = settings.server  # type: ignore[attr-defined]
    server.engine.latency = 0.2
    config = settings(policy__concurrency=2)
    command = [sys.executable, "-m", "pipeline", "build", *as_arguments(config), "--prefect", "off"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    child = subprocess.Popen(command, cwd=ROOT, env=child_environment(), **pipes)  # type: ignore[call-overload]
    deadline = time.monotonic() + 60
    while server.completed < 6 and time.monotonic() < deadline:
        time.sleep(0.02)
    answered = server.completed
    for number in signals:
        child.send_signal(number)
        time.sleep(0.05)
    _, errors = child.communicate(timeout=5)
    # A second signal may meet an interpreter that is already taking itself down: then the system ends it, with that signal.
    assert child.returncode == code or (len(signals) > 1 and child.returncode == -signals[-1]), errors
    assert "run the same command again" in errors and "Traceback" not in errors
    # The last two may have been on their way to us.
    assert Journal(config.out / "work" / "journal.db").calls()["sample"] >= answered - 2
    server.engine.latency = 0
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    keys = [call.key for call in server.calls if call.completed]
    assert len(keys) - len(set(keys)) <= 2
