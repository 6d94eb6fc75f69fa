"""A run into a bucket gives the bytes of a local run, and survives twenty kills with -9."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT, child_environment


@pytest.mark.slow
def test_twenty_kills_of_runs_into_a_bucket() -> None:
    pytest.importorskip("s3fs")
    # In a process of its own: children are forked, and this one has threads.
    command = [sys.executable, "-m", "tests.kills.s3", "--kills", "20"]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["kills"] == 20 and told["moment"] and told["access"]
