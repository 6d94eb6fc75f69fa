"""Runs under a Prefect server survive kills with -9 byte for byte.

Two kills, as one takes over a minute; `python -m tests.kills.clusters --kills 20 --runner dask` (or ray) does more.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT, child_environment

KILLS = 2


@pytest.mark.slow
def test_kills_under_a_prefect_server() -> None:
    # In a process of its own: children are forked, and this one has threads.
    command = [sys.executable, "-m", "tests.kills.clusters", "--kills", str(KILLS), "--runner", "threads"]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["kills"] == KILLS
