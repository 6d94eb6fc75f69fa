"""A disk that refuses is one error with exit code 1, leaves nothing half made, and the run goes on afterwards."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT, child_environment


@pytest.mark.slow
def test_refusals_at_any_step_are_survived() -> None:
    command = [sys.executable, "-m", "tests.kills.disks", "--every", "23"]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["exit 1"] > 10
