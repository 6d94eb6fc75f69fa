"""How far a reward can be trusted: the measures by hand, the command line, and what a run's summary warns of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.cli.main import main
from pipeline.cli.terminal import Terminal
from pipeline.config.settings import CurationConfig
from pipeline.curate import curate, in_threads
from pipeline.rewards import diagnostics
from pipeline.rewards.check import Pair, check, concerns
from pipeline.rewards.diagnostics import calibration, spearman, wilson
from tests.conftest import SAMPLE, Silent
from tests.loopback import MISTAKES, always_first, fair
from tests.stages.tables import TinyReward

KEYED = ("--set", "reward.api_key_env=OPENAI_API_KEY")


def test_intervals_are_wilsons() -> None:
    # Brown, Cai and DasGupta (2001); and Newcombe (1998), 81 of 263 and 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_rank_correlation_is_that_of_pandas() -> None:
    import pandas as pd

    draws = np.random.default_rng(0)
    one, other = draws.integers(0, 9, 200).astype(float), draws.integers(0, 9, 200).astype(float)
    expected = pd.Series(one).rank().corr(pd.Series(other).rank())
    assert spearman(one, other) == pytest.approx(expected)
    assert spearman(one, np.exp(one)) == pytest.approx(1.0)
    assert spearman(one, np.zeros(200)) is None and spearman(np.empty(0), np.empty(0)) is None


@pytest.mark.parametrize("temperature", [0.25, 1.0, 40.0])
def test_calibration_finds_the_temperature_of_odds(temperature: float) -> None:
    draws = np.random.default_rng(1)
    margins = draws.normal(size=20_000) * 2
    right = draws.random(20_000) < 1 / (1 + np.exp(-np.abs(margins)))
    found = calibration(np.where(right, 1, -1) * np.abs(margins) * temperature)
    assert found and found["temperature"] == pytest.approx(temperature, rel=0.1)
    assert found["error_fitted"] is not None and found["error_fitted"] < 0.02
    assert (found["error"] < 0.02) == (temperature == 1.0)
    assert [bucket["pairs"] for bucket in found["buckets"]] == [4000] * 5


def test_a_model_that_is_always_or_never_right_has_no_temperature() -> None:
    for margins in (np.ones(9), -np.ones(9)):
        found = calibration(margins)
        assert found and found["temperature"] is None
    assert calibration(np.zeros(3)) is None


PAIRS = [Pair([{"role": "user", "content": f"{n}?"}], "good " * (n % 7 + 1), "bad " * (n % 5 + 1)) for n in range(60)]


def test_a_reward_by_length_is_called_that() -> None:
    found = check(TinyReward(len), PAIRS)
    longer = [len(pair.chosen) > len(pair.rejected) for pair in PAIRS]
    assert found["length"]["correlation"] > 0.99
    assert found["length"]["longer_is_better"] == found["accuracy"]
    assert found["accuracy"]["share"] == pytest.approx((sum(longer) + found["ties"] / 2) / 60)
    assert any("length" in concern for concern in concerns(found))
    assert found["length"]["accuracy_when_shorter_is_better"]["share"] == 0.0


def test_a_reward_that_knows_gives_no_concern_about_chance() -> None:
    found = check(TinyReward(lambda text: 2.5 + len(text) / 100 if text.startswith("good") else 0.5), PAIRS)
    assert found["accuracy"] == {"share": 1.0, "low": pytest.approx(0.9398, abs=1e-3), "high": 1.0, "of": 60}
    assert not any("chance" in concern for concern in concerns(found))
    assert found["order"] is None and found["answers_per_second"] > 0


def test_pairs_without_a_score_are_counted_and_left_out() -> None:
    found = check(TinyReward(lambda text: float("nan") if text == "good " else float(len(text))), PAIRS)
    assert found["rejected"] == {"bad_reward": 9} and found["scored"] == 51
    assert "9 pairs could not be scored" in concerns(found)


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """What the command says of a file: its JSON."""
    monkeypatch.setenv("FIGA_STATE", str(tmp_path / "state"))
    rows = [
        {"prompt": f"Question {n}?", "chosen": f"All is well, {n}.", "rejected": f"{mistake} {n}"}
        for n, mistake in enumerate(list(MISTAKES) * 4)
    ]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("\n".join(map(json.dumps, rows)))

    def run(*arguments: str) -> Any:
        assert main(["rewards", "check", "--pairs", str(pairs), "--json", *arguments]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize("logprobs", ["true", "false"])
def test_order_bias_is_seen_and_asking_in_both_orders_takes_it_out(
    told: Callable[..., Any], loopback: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, logprobs: str
) -> None:
    server = loopback(always_first)
    monkeypatch.setenv("OPENAI_API_KEY", server.key)
    pairwise = ("--set", "reward.judge=pairwise", "--set", f"reward.logprobs={logprobs}")
    biased = told("--model", f"openai/judge@{server.openai_url}", *pairwise, *KEYED)
    assert biased["order"]["prefers_first"] == pytest.approx(0.9 if logprobs == "true" else 1.0)
    assert biased["order"]["consistent"] == 0.0
    assert any("order bias: it prefers the first reply" in concern for concern in biased["concerns"])
    assert biased["accuracy"]["share"] == 0.5 and biased["ties"] == 24
    assert len(server.calls) == 48, "each order once; the measure of bias asks nothing again"
    honest = loopback(fair)
    monkeypatch.setenv("OPENAI_API_KEY", honest.key)
    found = told("--model", f"openai/judge@{honest.openai_url}", *pairwise, *KEYED)
    assert found["order"]["prefers_first"] == 0.5 and found["order"]["consistent"] == 1.0
    assert found["accuracy"]["share"] == 1.0 and not any("order" in concern for concern in found["concerns"])


def test_a_pointwise_judge_has_no_order(
    told: Callable[..., Any], loopback: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = loopback(fair)
    monkeypatch.setenv("OPENAI_API_KEY", server.key)
    found = told("--model", f"openai/judge@{server.openai_url}", "--limit", "6", *KEYED)
    assert (found["pairs"], found["order"], found["accuracy"]["share"]) == (6, None, 1.0)
    assert found["kind"] == "pointwise judge" and found["template"]


def test_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewards", "check", "--pairs", str(SAMPLE)]) == 0
    said = capsys.readouterr().out
    for part in ("112 scored of 112", "rank correlation", "temperature", "answers a second", "by length alone"):
        assert part in said


@pytest.mark.parametrize(
    ("content", "arguments", "told"),
    [
        ("not json\n", [], "pairs.jsonl:1: malformed_json"),
        ('{"instruction": "q", "output": "a"}\n', [], "better and a worse answer"),
        ("", [], "pairs.jsonl"),
        ('{"prompt": "q", "chosen": "a", "rejected": "b"}\n', ["--model", "opneai/x"], "did you mean openai"),
        ('{"prompt": "q", "chosen": "a", "rejected": "b"}\n', ["--model", "http/x@http://h"], "reward.request"),
        ('{"prompt": "q", "chosen": "a", "rejected": "b"}\n', ["--source", "hh"], "hh-rlhf"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, arguments: list[str], told: str
) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(content)
    assert main(["rewards", "check", "--pairs", str(path), *arguments]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note:")]
    assert len(said) == 1 and said[0].startswith("error:") and told in said[0]


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewards", "check", "--pairs", str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl" in capsys.readouterr().err


def scored(*rows: tuple[str, str, float, float]) -> pa.Table:
    return pa.table(dict(zip(diagnostics.COLUMNS, zip(*rows, strict=True), strict=True)))


def warned(measured: dict[str, Any] | None) -> list[str]:
    return diagnostics.warnings({"reward_check": measured, "models": {"reward": {"name": "r"}}})


def test_a_runs_own_scores_tell() -> None:
    by_length = [("a" * n, "b" * (n % 11), float(n), float(n % 11)) for n in range(1, 41)]
    told = diagnostics.measure([scored(*by_length[:20]), scored(*by_length[20:])])
    assert told["rows"] == 40 and told["length_correlation"] == 1.0
    assert told["prefers_reference"] == 0.75, "of the first ten each is as long as the other"
    assert ["by length" in line for line in warned(told)] == [True]
    fair_one = told | {"length_correlation": 0.7}
    assert warned(fair_one) == []
    assert "in only 59% of 40 rows" in warned(fair_one | {"prefers_reference": 0.59})[0]
    assert warned({"rows": 0}) == warned(None) == []
    assert diagnostics.measure([]) == {"rows": 0}


def test_a_runs_summary_report_card_and_manifest_say_so(
    settings: Callable[..., CurationConfig], loopback: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.loopback.rewards import RewardDesk

    url = loopback(extensions=[RewardDesk(lambda text: -len(text.rpartition("Assistant: ")[2])).extend], key=None).url
    outcome = curate(settings(reward__model=f"openrlhf/short@{url}"), in_threads, Silent())
    assert outcome.manifest["reward_check"]["length_correlation"] == pytest.approx(-1.0, abs=1e-3)
    with Terminal() as terminal:
        terminal.summary(outcome)
    assert "is mostly explained by length: shorter answers score higher" in capsys.readouterr().out
    assert "is mostly explained by length: shorter answers score higher" in (outcome.out / "report.html").read_text(
        "utf-8"
    )
    assert "rank correlation of score and length -1.00" in (outcome.out / "README.md").read_text("utf-8")
