"""What all reward models have in common, and the one way to call them."""

import math
import statistics
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config.settings import RewardSettings
from pipeline.errors import RowReject
from pipeline.models.chat import ChatModel
from pipeline.schema import digest

# A query's messages and an answer to them.
Item = tuple[list[dict[str, str]], str]
# Not always finite: callers check.
Score = float | RowReject


class RewardModel(ABC):
    """A model that scores answers. An item's score depends on that item only, never on the others of its batch."""

    name: str  # published with every row
    digest: str  # changes whenever the scores could
    facts: Mapping[str, Any] = MappingProxyType({})  # for the manifest
    rows_per_call: int = 256  # 0: all at a time
    chat_models: Sequence[ChatModel] = ()  # the language models that it calls

    @abstractmethod
    def score(self, items: Sequence[Item], references: Sequence[str]) -> Sequence[Score] | npt.NDArray[np.float32]:
        """One score or reject per item, in the items' order. references: the reference answer of each item."""

    def describe(self) -> dict[str, Any]:
        """What the manifest says about the model."""
        return {"name": self.name, "digest": self.digest, **self.facts}


def score_items(reward: RewardModel, items: Sequence[Item], references: Sequence[str]) -> list[Score]:
    """One score or reject per item, in order; equal items with equal references are scored once."""
    pairs = list(zip(items, references, strict=True))
    keys = [repr(pair) for pair in pairs]
    distinct = dict(zip(keys, pairs, strict=True))
    scores = reward.score([item for item, _ in distinct.values()], [reference for _, reference in distinct.values()])
    by_key = dict(zip(distinct, scores, strict=True))
    return [score if isinstance(score, RowReject) else float(score) for score in map(by_key.__getitem__, keys)]


class Ensemble(RewardModel):
    """Several reward models as one: their mean, their minimum, or `worst`: mean − worst_k × standard deviation (population).

    A logit, a mark and a preference have no common scale, so `reward.centres` and `reward.spreads` say what to subtract from
    each member's scores and what to divide them by. One member's reject is the row's.
    """

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
