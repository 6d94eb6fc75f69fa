"""Runs that are killed with -9 again and again end with the bytes of a run that nobody disturbed.

Three hundred kills: `python -m tests.kills --kills 300`.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT, child_environment


@pytest.mark.slow
def test_twenty_five_kills_change_no_byte_and_lose_no_row() -> None:
    # In a process of its own: children are forked, and this one has threads.
    command = [sys.executable, "-m", "tests.kills", "--kills", "25", "--seed", "7"]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["kills"] == 25 and told["moment"] and told["step"]
