"""A journal that is poorer than the work folder knows is noticed, and what was lost counts as spent."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config.settings import CurationConfig
from pipeline.curate import curate, in_threads
from pipeline.errors import BudgetReached
from pipeline.models.journal import Journal
from pipeline.run import shards
from tests.conftest import ROOT, Silent, as_arguments, child_environment

Settings = Callable[..., CurationConfig]
PRICED = {"policy__price": "1000,1000", "reviser__price": "1000,1000"}

# Ends as by kill -9 once two shards are through, while all that was paid is in the journal's log.
KILLED = """
import os, signal, sys
from pipeline.cli.main import main
from pipeline.run import shards
real, left = shards.run_stage, 4

def killed(*arguments):
    global left
    done = real(*arguments)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return done

shards.run_stage = killed
main(sys.argv[1:])
"""


def killed(config: CurationConfig) -> Path:
    command = [sys.executable, "-c", KILLED, "build", *as_arguments(config), "--prefect", "off"]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    log = config.out / "work" / "journal.db-wal"
    assert log.stat().st_size and json.loads((config.out / "work" / "paid.json").read_text())["sample"][0] > 0
    return log


@pytest.mark.parametrize("damage", ["deleted", pytest.param("zeroed", marks=pytest.mark.slow)])
def test_a_lost_log_is_told_with_the_sum_and_counts_against_the_budget(settings: Settings, damage: str) -> None:
    config = settings(run__workers=1, run__budget_usd=1000, **PRICED)
    log = killed(config)
    known = json.loads((config.out / "work" / "paid.json").read_text())
    answers, dollars = sum(one[0] for one in known.values()), sum(one[1] for one in known.values()) / 1e12
    log.unlink() if damage == "deleted" else log.write_bytes(bytes(log.stat().st_size))
    reporter = Silent()
    shards.forget_contexts()
    with pytest.raises(BudgetReached):
        curate(settings(run__workers=1, run__budget_usd=dollars, **PRICED), in_threads, reporter)
    (warning,) = [one for one in reporter.warnings if "no longer in it" in one]
    assert f"{answers} answers" in warning and f"${dollars:.4f} at most" in warning and "\n" not in warning
    shards.forget_contexts()
    reporter = Silent()
    manifest = curate(config, in_threads, reporter).manifest
    assert not [one for one in reporter.warnings if "no longer in it" in one], "told once"
    assert manifest["cost_usd"] >= dollars + Journal(config.out / "work" / "journal.db").uncertain()


def test_a_whole_journal_is_no_news(settings: Settings) -> None:
    config = settings(run__workers=1, **PRICED)
    killed(config)
    reporter = Silent()
    shards.forget_contexts()
    curate(config, in_threads, reporter)
    assert not [one for one in reporter.warnings if "no longer in it" in one]


def test_a_deleted_journal_is_told_too(settings: Settings) -> None:
    curate(settings(**PRICED), in_threads, Silent())
    config = settings(filter__max_distance=0.7, **PRICED)
    for file in (config.out / "work").glob("journal.db*"):
        file.unlink()
    reporter = Silent()
    shards.forget_contexts()
    before = json.loads((config.out / "work" / "paid.json").read_text())
    manifest = curate(config, in_threads, reporter).manifest
    assert any("no longer in it" in one for one in reporter.warnings)
    assert manifest["cost_usd"] >= sum(money for _, money in before.values()) / 1e12
