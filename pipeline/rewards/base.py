"""What all reward models have in common, and the one way to call them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import RowReject
from pipeline.models.chat import ChatModel

# A query's messages and an answer to them.
Item = tuple[list[dict[str, str]], str]
# Not always finite: callers check.
Score = float | RowReject


class RewardModel(ABC):
    """A model that scores answers. An item's score depends on that item only, never on the others of its batch.

    name is published with every row. digest changes whenever the scores could. facts are for the manifest. rows_per_call is
    how many rows it takes at a time; 0 means all. chat_models are the language models that it calls.
    """

    name: str
    digest: str
    facts: Mapping[str, Any] = MappingProxyType({})
    rows_per_call: int = 256
    chat_models: Sequence[ChatModel] = ()

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
