"""The minutes left of a run, from counts of rows."""

from __future__ import annotations

import pytest

from pipeline.cli.terminal import TimeLeft
from pipeline.config.loading import load_config
from pipeline.run.progress import Counts


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("pipeline.cli.terminal.time.monotonic", lambda: now[0])
    return now


def test_it_is_known_at_once_and_follows_the_run(clock: list[float]) -> None:
    left = TimeLeft(load_config(flags={"policy.concurrency": 1, "selection.eta1": "q0.5", "selection.eta2": "off"}))
    assert left.text({}) == ""
    first = left.text({"sample": Counts(0, 0, 40)})
    assert first == "about 12 min left", "40 drafts, 20 revisions, 8 judgements: 122 drafts of 6 s"
    clock[0] += 30
    assert left.text({"sample": Counts(10, 0, 40)}) == "about 6 min left", "112 drafts of 3 s"
    clock[0] += 90
    counts = {"sample": Counts(40, 0, 40), "select": Counts(40, 30, 40), "revise": Counts(5, 0, 10)}
    assert left.text(counts) == "about 1 min left"


def test_what_was_done_before_counts_as_done_and_costs_no_time(clock: list[float]) -> None:
    left = TimeLeft(load_config(flags={"policy.concurrency": 1, "selection.eta1": 0, "selection.eta2": "off"}))
    assert left.text({"sample": Counts(30, 0, 40)}).startswith("about ")
    clock[0] += 60
    assert left.text({"sample": Counts(32, 0, 40)}) == "about 86 min left", "30 s a draft, and 172 of them"


def test_nothing_is_said_of_other_models_and_at_the_end(clock: list[float]) -> None:
    served = load_config(flags={"policy.model": "openai/m@http://127.0.0.1:9/v1", "labels.tokenizer": "x"})
    assert TimeLeft(served).text({"sample": Counts(0, 0, 40)}) == ""
    done = {name: Counts(4, 0, 4) for name in ("sample", "select", "revise", "filter")}
    assert TimeLeft(load_config(flags={})).text(done) == ""
