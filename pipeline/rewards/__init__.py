"""Reward models: R(X, Y) as one number, higher is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.config import RewardSettings
from pipeline.errors import ConfigError
from pipeline.model_files import folder_digest
from pipeline.models.spec import ModelSpec

EMBEDDED = "reward-head"
Item = tuple[list[dict[str, str]], str]


class RewardModel(Protocol):
    """What scores answers. `digest` changes whenever the scores could."""

    name: str
    digest: str

    def score(self, items: Sequence[Item]) -> npt.NDArray[np.float32]:
        """Scores of (messages, answer) items, shape (n,), in their order; a batch's make-up must not matter."""
        ...


def check(settings: RewardSettings) -> None:
    """Refuse a reward model that can't exist, before anything is loaded. Raises ConfigError."""
    spec = ModelSpec.parse(settings.model)
    if spec.provider == "hf" or (spec.provider == "local" and spec.name == EMBEDDED):
        return
    raise ConfigError(f"reward.model: expected local/{EMBEDDED} or hf/ORG/NAME, got {settings.model}")


def identity(settings: RewardSettings) -> str | None:
    """The hash of a reward model's files, as far as they can be had without loading it; None for a Hub id."""
    spec = ModelSpec.parse(settings.model)
    if spec.provider == "hf":
        return folder_digest(spec.name, weights=True)
    from pipeline.rewards.embedded import EmbeddedReward

    return EmbeddedReward().digest


def load(settings: RewardSettings) -> RewardModel:
    """The reward model that `settings` name."""
    check(settings)
    spec = ModelSpec.parse(settings.model)
    if spec.provider == "hf":
        from pipeline.rewards.hf import SequenceClassifierReward

        return SequenceClassifierReward(spec.name, settings.max_length, settings.batch_size)
    from pipeline.rewards.embedded import EmbeddedReward

    return EmbeddedReward()
