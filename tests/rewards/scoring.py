"""What tests of reward models share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline import rewards
from pipeline.config.settings import RewardSettings
from tests.stages.tables import model_for


def no_chat(settings: RewardSettings) -> Any:
    raise AssertionError(f"no language model is needed, and {settings.model} was asked for")


def load(settings: RewardSettings, folder: Path) -> Any:
    """The reward model; what it asks of language models is journalled in the folder."""
    return rewards.load_reward(settings, lambda each: model_for(each, folder))
