"""η1, η2, η3: each at, below and above; as numbers, quantiles and off."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from pipeline.config.settings import SelectionSettings
from pipeline.stages.select import OFF, SCORES, Thresholds, picked, resolve, select
from tests.stages.tables import Counter, check_accounting, reasons, row, table_for, the_reject

# Values that float32 holds exactly, so that "at the threshold" means it.
STEP = 0.125


def thresholds(eta1: float | None, eta2: float | None, eta3: float | None) -> Thresholds:
    return {"eta1": eta1, "eta2": eta2, "eta3": eta3}


def judged(reference: float, initial: float, **eta: float) -> str | None:
    given = table_for("select", [row(0, reward_reference=reference, reward_initial=initial)])
    output = select(given, {**OFF, **eta}, Counter())
    check_accounting("select", given, output)
    return reasons(output).get(0)


@pytest.mark.parametrize(
    ("initial", "reason"), [(0.5 - STEP, None), (0.5, "initial_good_enough"), (2, "initial_good_enough")]
)
def test_eta1_is_above_the_initial_answer(initial: float, reason: str | None) -> None:
    assert judged(9, initial, eta1=0.5) == reason


@pytest.mark.parametrize(
    ("reference", "reason"), [(0.5 + STEP, None), (0.5, "reference_not_good"), (0, "reference_not_good")]
)
def test_eta2_is_below_the_reference(reference: float, reason: str | None) -> None:
    assert judged(reference, -9, eta2=0.5) == reason


@pytest.mark.parametrize(
    ("initial", "reason"), [(1 - STEP, None), (1, "reference_hardly_better"), (3, "reference_hardly_better")]
)
def test_eta3_is_below_the_difference(initial: float, reason: str | None) -> None:
    assert judged(1.5, initial, eta3=0.5) == reason


def test_off_lets_everything_pass() -> None:
    assert judged(-9, 9) is None
    assert judged(-9, 9, eta3=-18.5) is None


def test_rejects_show_the_score_and_the_threshold() -> None:
    given = table_for("select", [row(0), row(1, reward_initial=4.0), row(2, reward_reference=-4.0)])
    report = Counter()
    output = select(given, thresholds(1.0, 0.0, 0.0), report)
    check_accounting("select", given, output)
    assert reasons(output) == {1: "initial_good_enough", 2: "reference_not_good"}
    assert output.rejects[0].evidence == {"reward_initial": 4.0, "eta1": 1.0}
    assert output.rejects[1].evidence == {"reward_reference": -4.0, "eta2": 0.0}
    only = select(given.slice(1, 1), thresholds(None, None, 0.5), Counter())
    assert the_reject(only).evidence == {"difference": -2.0, "eta3": 0.5}
    assert report.seen == (3, 2)


def scores(*pairs: tuple[float, float]) -> pa.Table:
    return table_for("select", [row(n, reward_reference=y, reward_initial=y_hat) for n, (y, y_hat) in enumerate(pairs)])


def test_quantiles_are_of_this_runs_scores_each_of_its_own() -> None:
    tables = [scores((10, 0), (20, 1)), scores((30, 2), (40, 3), (50, 4))]
    settings = SelectionSettings(eta1="q0.5", eta2="q0.25", eta3="q1")
    assert resolve(settings, tables) == {"eta1": 2.0, "eta2": 20.0, "eta3": 46.0}
    assert resolve(settings, tables[::-1]) == resolve(settings, tables), "the order of shards must not matter"
    between = SelectionSettings(eta1="q0.125", eta2="q0", eta3=0.5)
    assert resolve(between, tables) == {"eta1": 0.5, "eta2": 10.0, "eta3": 0.5}


def test_a_quantile_and_the_number_it_stands_for_select_the_same_rows() -> None:
    given = scores((9, 0), (9, 1), (9, 2), (9, 3), (9, 4))
    eta = resolve(SelectionSettings(eta1="q0.5", eta2="off", eta3="off"), [given])
    output = select(given, eta, Counter())
    assert output.rows["reward_initial"].to_pylist() == [0, 1]


@pytest.mark.parametrize("off", [None, "off", False])
def test_off_stays_off_when_resolved(off: Any) -> None:
    settings = SelectionSettings(eta1=off, eta2=off, eta3=off)
    assert resolve(settings, [scores((1, 2))]) == OFF


@pytest.mark.parametrize("tables", [[], [scores()]])
def test_quantiles_of_nothing(tables: list[pa.Table]) -> None:
    assert resolve(SelectionSettings(eta1="q0.5", eta2="q0.5", eta3=0.25), tables) == thresholds(None, None, 0.25)


def test_an_empty_table() -> None:
    given = table_for("select", [])
    output = select(given, thresholds(0.0, 0.0, 0.0), Counter())
    check_accounting("select", given, output)
    assert output.rows.num_rows == 0


def sampled(*queries: tuple[float, ...]) -> list[dict[str, Any]]:
    """Rows of queries with so many samples, whose rewards these are."""
    return [
        row(10 * n + k, source_row=n, sample_index=k, reward_reference=9.0, reward_initial=score)
        for n, scores in enumerate(queries)
        for k, score in enumerate(scores)
    ]


@pytest.mark.parametrize(
    ("pick", "kept"),
    [
        ("first", [3.0, 5.0]),
        ("worst", [1.0, 5.0]),
        ("best", [4.0, 5.0]),
        ("median", [2.0, 5.0]),
        ("all", [3.0, 1.0, 4.0, 2.0, 5.0]),
    ],
)
def test_which_sample_goes_on(pick: str, kept: list[float]) -> None:
    given, report = table_for("select", sampled((3, 1, 4, 2), (5,))), Counter()
    output = select(given, OFF, report, pick)
    check_accounting("select", given, output)
    assert output.rows["reward_initial"].to_pylist() == kept
    assert set(reasons(output).values()) <= {"not_picked"}
    assert report.seen == (5, 5 - len(kept))
    assert picked(given.select(SCORES), pick)["reward_initial"].to_pylist() == kept


def test_who_is_not_picked_says_who_was_and_of_equals_the_first_is() -> None:
    given = table_for("select", sampled((2, 1, 1)))
    output = select(given, OFF, Counter(), "worst")
    assert output.rows["sample_index"].to_pylist() == [1]
    told = {"picked": given["id"][1].as_py(), "reward_picked": 1.0}
    assert [reject.evidence for reject in output.rejects] == [told, told]


def test_thresholds_judge_the_picked_one_alone() -> None:
    given = table_for("select", sampled((2, 1), (4, 3)))
    output = select(given, thresholds(2.5, None, None), Counter(), "worst")
    assert reasons(output) == {0: "not_picked", 2: "not_picked", 3: "initial_good_enough"}
