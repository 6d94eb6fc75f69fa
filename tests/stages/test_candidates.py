"""Which of several revisions goes on."""

from __future__ import annotations

from pathlib import Path

from pipeline.config.settings import FilterSettings, LabelSettings
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
