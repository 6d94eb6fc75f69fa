"""`--target`: the source is read until so many pairs are published, the same ones in every run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.cli.main import main
from pipeline.config.settings import CurationConfig
from pipeline.curate import Outcome, curate, in_threads
from pipeline.dataset.verify import verify
from pipeline.errors import UsageError
from pipeline.run import shards
from pipeline.run.status import folder_state
from pipeline.stages.select import Thresholds
from tests.conftest import Silent, as_arguments

ROWS = 600
Settings = Callable[..., CurationConfig]


def run(config: CurationConfig, execute: Any = in_threads) -> tuple[Outcome, list[str]]:
    shards.forget_contexts()
    reporter = Silent()
    return curate(config, execute, reporter), reporter.warnings


def published(out: Path) -> list[int]:
    return [int(row) for row in pq.read_table(out / "data")["source_row"].to_pylist()]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Many queries; the scripted models make a pair of about every third."""
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": f"Question {n}?", "response": f"Answer {n}."}) + "\n" for n in range(ROWS))
    )
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Finished pairs; of every second one the revision is its draft."""
    path = tmp_path / "pairs.jsonl"
    line = '{{"prompt": "Question {n}?", "initial": "It is one.", "revised": "It is {what}."}}\n'
    path.write_text("".join(line.format(n=n, what="two" if n % 2 else "one") for n in range(ROWS)))
    return path


@pytest.fixture
def of_pairs(settings: Settings, pairs: Path) -> Settings:
    return lambda **flags: settings(source__name="jsonl", source__input=str(pairs), **flags)


def test_exactly_so_many_and_the_first_ones(of_pairs: Settings) -> None:
    outcome, _ = run(of_pairs(source__target=100))
    manifest = outcome.manifest
    assert published(outcome.out) == list(range(1, 201, 2)) and manifest["target"] == 100
    read = manifest["rows"]["read"]
    assert 200 <= read < 400 and read == 100 + manifest["rows"]["rejected"]
    assert manifest["funnel"][-1]["rejected"] == {"beyond_target": read // 2 - 100}
    assert [str(problem) for problem in verify(outcome.out).problems] == []
    assert folder_state(outcome.out).rerun == []
    assert run(of_pairs(source__target=100))[0].already_done


def test_a_larger_target_goes_on_from_there(of_pairs: Settings) -> None:
    run(of_pairs(source__target=40))
    outcome, _ = run(of_pairs(source__target=100))
    assert published(outcome.out) == list(range(1, 201, 2))
    whole, _ = run(of_pairs(out="other", source__target=100))
    for path in (whole.out / "data").glob("*.parquet"):
        assert pq.read_table(path).equals(pq.read_table(outcome.out / "data"))


def test_a_source_that_ends_before_says_so(of_pairs: Settings) -> None:
    outcome, said = run(of_pairs(source__target=1000))
    assert len(published(outcome.out)) == ROWS // 2 and "ends before 1000 pairs" in said[-1]
    assert outcome.manifest["rows"]["read"] == ROWS
    limited, _ = run(of_pairs(out="limited", source__target=1000, source__limit=70))
    assert limited.manifest["rows"]["read"] == 70


def test_thresholds_are_those_of_the_first_rows(settings: Settings, rows: Path) -> None:
    options = {"source__input": str(rows), "source__name": "jsonl", "selection__eta2": "off", "selection__eta3": -10.0}
    used: list[Thresholds] = []

    def execute(config: CurationConfig, count: int, stages: tuple[str, ...], thresholds: Thresholds | None) -> None:
        used.extend([thresholds] if thresholds else [])
        in_threads(config, count, stages, thresholds)

    outcome, said = run(settings(source__target=60, **options), execute)
    pairs = published(outcome.out)
    assert len(pairs) == 60 and len(used) > 1
    assert all(each == used[0] for each in used) and outcome.manifest["thresholds"] == used[0]
    assert sum("thresholds by the first 64 rows" in text for text in said) == 1
    first, _ = run(settings(out="first", source__limit=64, **options))
    assert first.manifest["thresholds"] == used[0]
    again, _ = run(settings(source__target=70, **options))
    assert again.manifest["thresholds"] == used[0] and published(again.out)[:60] == pairs


def test_a_run_that_was_stopped_goes_on(settings: Settings, rows: Path) -> None:
    options = {"source__input": str(rows), "source__name": "jsonl", "selection__eta2": "off", "selection__eta3": -10.0}
    whole, _ = run(settings(out="whole", source__target=60, **options))
    calls = 0

    def stops(config: CurationConfig, count: int, stages: tuple[str, ...], thresholds: Thresholds | None) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise UsageError("stopped here")
        in_threads(config, count, stages, thresholds)

    with pytest.raises(UsageError):
        run(settings(source__target=60, **options), stops)
    resumed, _ = run(settings(source__target=60, **options))
    assert resumed.calls < whole.calls
    for path in sorted((whole.out / "data").glob("*.parquet")):
        assert pq.read_table(path).equals(pq.read_table(resumed.out / "data" / path.name))


def test_the_dry_run_shows_the_first_row_and_the_target(of_pairs: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", *as_arguments(of_pairs()), "--target", "100", "--dry-run"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "user 'Question 0?' · → reference 'It is one.' · initial 'It is one.'" in shown
    assert "100 pairs: about 100 rows, if all" in shown
    assert main(["build", *as_arguments(of_pairs()), "--target", "0", "--dry-run"]) == 2
