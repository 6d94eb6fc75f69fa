"""Several reward models as one: their mean, their least, or the mean less their disagreement.

Members' scores are taken as they are, unless `reward.centres` and `reward.spreads` say what to take off and to divide by: a
logit, a mark from 1 to 9 and a preference from −1 to 1 are of no common scale. They are settings, and not taken from a
run's own scores, so that a score depends on its own row alone; `figa rewards check` prints those of a file.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline import rewards
from pipeline.config.reward import RewardSettings
from pipeline.errors import RowReject
from pipeline.schema import digest

if TYPE_CHECKING:
    from pipeline.rewards import Item, RewardModel, Score


class Ensemble:
    """`worst` is mean − worst_k × standard deviation (of the members, population). A row that one rejects is a reject."""

    def __init__(self, members: Sequence[RewardModel], settings: RewardSettings) -> None:
        self._members = members
        self._combine, self._k = settings.combine, settings.worst_k
        centres = settings.centres or (0.0,) * len(members)
        self._scales = list(zip(centres, settings.spreads or (1.0,) * len(members), strict=True))
        self.models = [model for member in members for model in getattr(member, "models", [])]
        self.name = f"{settings.combine}({', '.join(member.name for member in members)})"
        self.digest = digest([member.digest for member in members], self._combine, self._k, self._scales)
        self.facts = {"kind": "ensemble", "members": [rewards.describe(member) for member in members]}
        # As few rows at a time as any member wants; 0, all, only when no member has another wish.
        sizes = [rewards.chunk(member, 256) for member in members]
        self.chunk = 0 if 0 in sizes else min(sizes)

    def score(self, items: Sequence[Item]) -> list[Score]:
        raise TypeError("an ensemble may hold a judge of pairs: call `against`")

    def against(self, items: Sequence[Item], references: Sequence[str]) -> list[Score]:
        columns = [rewards.scores(member, items, references) for member in self._members]
        return [self._one(row) for row in zip(*columns, strict=True)]

    def _one(self, row: Sequence[Score]) -> Score:
        values = []
        for score, (centre, spread) in zip(row, self._scales, strict=True):
            if isinstance(score, RowReject):
                return score
            values.append((score - centre) / spread)
        mean = math.fsum(values) / len(values)
        if self._combine == "mean" or not math.isfinite(mean):
            return mean
        return min(values) if self._combine == "min" else mean - self._k * statistics.pstdev(values, mean)
