"""Thresholds tried on a real run's scores."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli.main import main
from pipeline.config.settings import CurationConfig
from pipeline.curate import Outcome, curate, in_threads
from pipeline.report.page import NAME
from pipeline.run import calibration
from tests.conftest import Silent

Settings = Callable[..., CurationConfig]


def run(config: CurationConfig) -> Outcome:
    return curate(config, in_threads, Silent())


def test_the_standing_choice_selects_what_the_run_selected(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run(settings())
    assert (outcome.out / NAME).stat().st_size > 10_000, "a run writes its report"
    selected = next(step["out"] for step in outcome.manifest["funnel"] if step["stage"] == "select")
    eta = outcome.manifest["thresholds"]
    numbers = ",".join(str(eta[name]) for name in ("eta1", "eta2", "eta3"))
    arguments = [str(outcome.out), "--eta", "q0.5,q0.3,0", "--eta", numbers, "--eta", "off,off,off"]
    assert main(["calibrate", *arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    scored = next(step["out"] for step in outcome.manifest["funnel"] if step["stage"] == "score")
    assert found["rows"] == scored
    assert [choice["rows"] for choice in found["choices"]] == [selected, selected, scored]
    assert found["choices"][0]["numbers"] == list(eta.values())
    assert main(["calibrate", *arguments]) == 0
    assert "R(initial), for η1" in capsys.readouterr().out


def test_costs_follow_from_the_runs_own_revisions(tmp_path: Path) -> None:
    import pyarrow as pa

    content = {
        "funnel": [{"stage": "revise", "in": 4}],
        "cost_usd_by_call": {"sample": 9.0, "diagnose": 0.1, "revise": 0.3},
    }
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    price, known_by = calibration.price_of_revision(tmp_path)
    assert price == pytest.approx(0.1) and known_by == "as this run's own revisions"
    table = pa.table({"reward_initial": [0.0, 1.0, 2.0], "reward_reference": [3.0, 3.0, 1.0]})
    (choice,) = calibration.choices(table, ["1.5,off,0"], price)
    assert choice.rows == 2 and choice.cost_usd == pytest.approx(0.2)
    assert calibration.price_of_revision(tmp_path / "none")[0] is None


@pytest.mark.parametrize("eta", ["q0.5", "high,0,0", "q2,0,0"])
def test_a_choice_that_cannot_be_read_is_told(
    eta: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow as pa

    table = pa.table({"reward_initial": [0.0], "reward_reference": [3.0]})
    monkeypatch.setattr(calibration, "scored_rows", lambda out: table)
    assert main(["calibrate", str(tmp_path), "--eta", eta]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --eta {eta}: ") and error.count("\n") == 1


def test_without_scores_it_says_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", str(tmp_path)]) == 2
    assert "run figa build until the stage score is done" in capsys.readouterr().err


def test_a_run_that_is_not_finished_has_an_estimated_price(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings()
    outcome = run(config)
    for name in ("revise", "filter", "label"):
        shutil.rmtree(outcome.out / "work" / name)
    (outcome.out / "manifest.json").unlink()
    prices = {"as_of": "2026-01-01", "models": {config.reviser.model: {"input": 1, "cached_input": 1, "output": 1}}}
    (tmp_path / "prices.yaml").write_text(json.dumps(prices))
    monkeypatch.setenv("FIGA_PRICES", str(tmp_path / "prices.yaml"))
    try:
        assert main(["calibrate", str(outcome.out), "--eta", "off,off,off", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
    finally:
        monkeypatch.undo()
    assert found["known_by"] == "estimated from texts and prices"
    # What the calls of the finished run would have cost at a dollar a million tokens, by the server's own count.
    (choice,) = found["choices"]
    assert 0.5 < choice["cost_usd"] / (choice["rows"] * found["usd_a_revision"]) < 1.5
    assert 100e-6 < found["usd_a_revision"] < 3000e-6


def test_no_scored_row_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow as pa

    none = pa.array([], pa.float32())
    monkeypatch.setattr(
        calibration, "scored_rows", lambda out: pa.table({"reward_initial": none, "reward_reference": none})
    )
    assert main(["calibrate", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "no scored row" in told and "nan" not in told


def test_shards_of_a_longer_plan_do_not_count(settings: Settings) -> None:
    run(settings(source__shard_rows=8))
    out = run(settings(source__shard_rows=8, source__limit=10)).out
    assert len(calibration.scored_rows(out)) <= 10
