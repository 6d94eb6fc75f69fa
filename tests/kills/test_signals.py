"""SIGTERM and Ctrl-C end a run within five seconds, with what was answered kept; a second Ctrl-C ends it at once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config.settings import CurationConfig
from pipeline.curate import curate, in_threads
from pipeline.models.journal import Journal
from pipeline.run import shards
from tests.conftest import ROOT, Silent, as_arguments, child_environment

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
    assert sum(Journal(config.out / "work" / "journal.db").calls().values()) >= answered - 2
    server.engine.latency = 0
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    keys = [call.key for call in server.calls if call.completed]
    assert len(keys) - len(set(keys)) <= 2


IN_A_CALLBACK = """
import os, signal, sys, time, weakref
from pipeline.storage import stopping
from pipeline.cli.interrupts import exit_code_of

class Thing: ...

def send(reference):
    os.kill(os.getpid(), signal.SIGTERM)
    sum(number for number in range(1000))

def work():
    thing = Thing()
    reference = weakref.ref(thing, send)
    del thing
    while True:
        stopping.check()
        time.sleep(0.01)

sys.exit(exit_code_of(work, "again"))
"""


def test_a_signal_inside_a_callback_of_the_interpreter_is_not_lost() -> None:
    command = [sys.executable, "-c", IN_A_CALLBACK]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (143, "interrupted; again\n")


@pytest.mark.parametrize("stage", ["plan", "sample", "publish"])
def test_a_signal_between_steps_ends_the_run_in_order(settings: Settings, stage: str, tmp_path: Path) -> None:
    """In order: the lock is released, so that the next run has nothing to take over."""
    config = settings(source__limit=12)
    script = tmp_path / "signalled.py"
    script.write_text(
        f"""
import os, signal, sys
from pipeline.cli import interrupts
from pipeline.cli.main import main
from pipeline.run import plan, publish, shards
# A busy machine takes longer to the next step.
interrupts._PATIENCE_S = 60
module = {{"plan": plan, "sample": shards, "publish": publish}}[{stage!r}]
name = {{"plan": "_write_shards", "sample": "run_stage", "publish": "publish_rows"}}[{stage!r}]
real = getattr(module, name)

def signalled(*arguments, **named):
    setattr(module, name, real)
    os.kill(os.getpid(), signal.SIGTERM)
    return real(*arguments, **named)

setattr(module, name, signalled)
sys.exit(main({["build", *as_arguments(config), "--prefect", "off", "--json"]!r}))
"""
    )
    command = [sys.executable, str(script)]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 143 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.count("interrupted; run the same command again") == 1
    assert not (config.out / "work" / "run.owner").exists()
    assert not (config.out / "manifest.json").exists()
    told = json.loads(done.stdout)
    assert told["exit_code"] == 143 and told["out"] == str(config.out) and told["stages"]
    shards.forget_contexts()
    reporter = Silent()
    assert curate(config, in_threads, reporter).manifest["rows"]["read"] == 12 and not reporter.warnings
