"""Several reward models as one: their mean, their minimum, or their mean minus their disagreement.

A logit, a mark from 1 to 9 and a preference from −1 to 1 have no common scale, so `reward.centres` and `reward.spreads` say
what to subtract from each member's scores and what to divide them by. They are settings, not taken from a run's own scores,
so that a score depends on its own row only; `figa rewards check` prints them for a file of pairs.
"""

import math
import statistics
from collections.abc import Sequence

from pipeline.config.reward import RewardSettings
from pipeline.errors import RowReject
from pipeline.rewards.base import Item, RewardModel, Score, score_items
from pipeline.schema import digest


class Ensemble(RewardModel):
    """`worst` is mean − worst_k × standard deviation (population) of the members. One member's reject is the row's."""

    def __init__(self, members: Sequence[RewardModel], settings: RewardSettings) -> None:
        self._members = members
        self._combine, self._k = settings.combine, settings.worst_k
        centres = settings.centres or (0.0,) * len(members)
        self._scales = list(zip(centres, settings.spreads or (1.0,) * len(members), strict=True))
        self.name = f"{settings.combine}({', '.join(member.name for member in members)})"
        self.digest = digest([member.digest for member in members], self._combine, self._k, self._scales)
        self.facts = {"kind": "ensemble", "members": [member.describe() for member in members]}
        # The smallest number, where 0 means all rows.
        self.rows_per_call = min(member.rows_per_call for member in members)
        self.chat_models = [model for member in members for model in member.chat_models]

    def score(self, items: Sequence[Item], references: Sequence[str]) -> list[Score]:
        columns = [score_items(member, items, references) for member in self._members]
        return [self._combine_scores(scores) for scores in zip(*columns, strict=True)]

    def _combine_scores(self, scores: Sequence[Score]) -> Score:
        values = []
        for score, (centre, spread) in zip(scores, self._scales, strict=True):
            if isinstance(score, RowReject):
                return score
            values.append((score - centre) / spread)
        mean = math.fsum(values) / len(values)
        if self._combine == "mean" or not math.isfinite(mean):
            return mean
        return min(values) if self._combine == "min" else mean - self._k * statistics.pstdev(values, mean)
