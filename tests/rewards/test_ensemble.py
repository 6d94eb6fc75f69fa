"""Several reward models as one."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pipeline import rewards
from pipeline.config.settings import RewardSettings
from pipeline.errors import RowReject
from pipeline.rewards.base import Ensemble, score_items
from tests.rewards.scoring import no_chat
from tests.stages.tables import TinyReward

ITEMS = [([{"role": "user", "content": "q"}], text) for text in ("1", "4")]


def combined(rules: list[Any], **settings: Any) -> list[Any]:
    members = [TinyReward(rule) for rule in rules]
    return score_items(Ensemble(members, RewardSettings(**settings)), ITEMS, ["", ""])


def test_mean_min_and_worst_case() -> None:
    rules = [float, lambda text: float(text) ** 2]
    assert combined(rules) == [1.0, 10.0]
    assert combined(rules, combine="min") == [1.0, 4.0]
    assert combined(rules, combine="worst", worst_k=0.5) == [1.0, 10.0 - 0.5 * 6.0]


def test_scales_are_taken_off_first() -> None:
    rules = [float, lambda text: 100 + 10 * float(text)]
    assert combined(rules, centres=[0.0, 100.0], spreads=[1.0, 10.0]) == [1.0, 4.0]


@pytest.mark.parametrize("combine", ["mean", "min", "worst"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("first", [True, False])
def test_a_score_that_is_no_number_stays_none(combine: str, bad: float, first: bool) -> None:
    rules = [float, lambda text: bad]
    scores = combined(rules if first else rules[::-1], combine=combine)
    assert not any(math.isfinite(score) for score in scores)


def test_what_one_member_rejects_is_a_reject() -> None:
    class Refusing(TinyReward):
        def score(self, items: Any, references: Any) -> Any:
            return [RowReject("judgement_unreadable"), 2.0]

    members = [TinyReward(float), Refusing(float)]
    scores = score_items(Ensemble(members, RewardSettings()), ITEMS, ["", ""])
    assert isinstance(scores[0], RowReject) and scores[1] == 3.0


def test_it_is_loaded_by_its_members_names() -> None:
    reward = rewards.load_reward(RewardSettings(model="local/reward-head, local/reward-head", combine="min"), no_chat)
    alone = rewards.load_reward(RewardSettings(), no_chat)
    assert score_items(reward, ITEMS, ["", ""]) == score_items(alone, ITEMS, ["", ""])
    assert reward.name == "min(local/reward-head, local/reward-head)"
    assert [member["digest"] for member in reward.describe()["members"]] == [alone.digest] * 2
