"""Which of several revisions goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.settings import FilterSettings, LabelSettings
from pipeline.errors import RowReject
from pipeline.labels.loading import load_tokenizer
from pipeline.stages.filter import chooser
from tests.stages.tables import TinyReward, row

GOOD, BETTER, FAR = (
    "The sun rises in the east.",
    "The sun rises early in the east.",
    "Bananas, kettles; 42 quick frogs? Yes!",
)
SCORES = {GOOD: 1.0, BETTER: 2.0, FAR: 9.0, "The sun rises.": -5.0}


def test_the_best_that_passes_the_gates_else_the_first(tiny_tokenizer: Path) -> None:
    tokenizer = load_tokenizer(tiny_tokenizer, LabelSettings(), "tiny")
    reward = TinyReward(lambda text: SCORES[text])
    choose = chooser(FilterSettings(min_reward_gain=0), tokenizer, reward)
    candidates = [[GOOD, FAR, BETTER], [FAR, "The sun rises."], [GOOD], [row(3)["initial"], "", GOOD]]
    assert choose([row(n) for n in range(4)], candidates) == [2, 0, 0, 2]
    assert reward.batches == 1, "all rows are scored together"
    assert choose([], []) == []


class TinyJudge:
    """Gains by rule; None can't be read."""

    def __init__(self, rule: dict[str, float | None]) -> None:
        self.rule = rule
        self.asked: list[str] = []

    def gains(self, rows: Any, at_least: float) -> list[float | RowReject]:
        self.asked += [each["revised"] for each in rows]
        gains = [self.rule[each["revised"]] for each in rows]
        return [RowReject("judgement_unreadable") if gain is None else gain for gain in gains]


@pytest.mark.parametrize(
    ("gains", "chosen"), [((0.5, -0.5), 0), ((0.25, 0.25), 2), ((-0.5, None), 0), ((None, None), 2)]
)
def test_a_judge_decides_among_those_that_pass(tiny_tokenizer: Path, gains: Any, chosen: int) -> None:
    tokenizer = load_tokenizer(tiny_tokenizer, LabelSettings(), "tiny")
    judge: Any = TinyJudge(dict(zip((GOOD, BETTER), gains, strict=True)))
    choose = chooser(FilterSettings(), tokenizer, TinyReward(lambda text: SCORES[text]), judge)
    assert choose([row(0), row(1)], [[GOOD, FAR, BETTER], [FAR]]) == [chosen, 0]
    assert judge.asked == [GOOD, BETTER]
