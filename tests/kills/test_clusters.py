"""Runs under a Prefect server, with threads, Dask or Ray, survive twenty kills with -9 byte for byte."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT, child_environment


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["threads", "dask", "ray"])
def test_twenty_kills_under_a_prefect_server(runner: str) -> None:
    if runner != "threads":
        pytest.importorskip(f"prefect_{runner}")
    # In a process of its own: children are forked, and this one has threads.
    command = [sys.executable, "-m", "tests.kills.clusters", "--kills", "20", "--runner", runner]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["kills"] == 20
