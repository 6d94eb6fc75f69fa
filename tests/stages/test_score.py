"""Scores land on their own rows, and a score that is no number never passes for one."""

from __future__ import annotations

import math

import pytest

from pipeline.stages.score import score
from tests.stages.tables import Counter, TinyReward, check_accounting, reasons, row, table_for


def test_both_answers_of_a_row_get_their_own_score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TinyReward, "rows_per_call", 3)
    rows = [row(n, reference=f"ref {n}", initial=f"ini {n}") for n in range(7)]
    given, report = table_for("score", rows), Counter()
    reward = TinyReward(lambda text: int(text[4:]) + (100 if text.startswith("ref") else 0))
    output = score(given, reward, report)
    check_accounting("score", given, output)
    assert output.rows["reward_initial"].to_pylist() == list(range(7))
    assert output.rows["reward_reference"].to_pylist() == [100 + n for n in range(7)]
    assert set(output.rows["reward_model"].to_pylist()) == {"tiny"}
    assert all(messages == rows[int(text[4:])]["messages"] for messages, text in reward.asked)
    assert reward.batches == 3
    assert report.seen == (7, 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", ["reference", "initial"])
def test_a_score_that_is_not_finite_is_a_reject(bad: float, side: str) -> None:
    given, report = table_for("score", [row(0), row(1, **{side: "odd"}), row(2)]), Counter()
    output = score(given, TinyReward(lambda text: bad if text == "odd" else 1.5), report)
    check_accounting("score", given, output)
    assert reasons(output) == {1: "bad_reward"}
    other = "initial" if side == "reference" else "reference"
    assert output.rejects[0].evidence == {f"reward_{side}": str(bad), f"reward_{other}": "1.5"}
    assert report.seen == (3, 1)


def test_a_wrong_number_of_scores_is_an_error_and_not_a_shift() -> None:
    class Short(TinyReward):
        def score(self, items: list[object], references: list[str]) -> object:
            return super().score(items[:-1], references)

    with pytest.raises(ValueError, match="zip"):
        score(table_for("score", [row(0), row(1)]), Short(lambda text: 0.0), Counter())


def test_an_empty_table() -> None:
    given = table_for("score", [])
    output = score(given, TinyReward(lambda text: 0.0), Counter())
    check_accounting("score", given, output)
