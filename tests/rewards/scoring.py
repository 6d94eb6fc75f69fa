"""What tests of reward models share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import rewards
from pipeline.config.settings import RewardSettings
from tests.loopback import ChatRequest, Reply
from tests.stages.tables import model_for


def no_chat(settings: RewardSettings) -> Any:
    raise AssertionError(f"no language model is needed, and {settings.model} was asked for")


def load(settings: RewardSettings, folder: Path) -> Any:
    """The reward model; what it asks of language models is journalled in the folder."""
    return rewards.load_reward(settings, lambda each: model_for(each, folder))


def judge_at(
    loopback: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    behaviour: Callable[[ChatRequest], Reply],
    asked: list[ChatRequest],
    provider: str = "openai",
    **settings: Any,
) -> RewardSettings:
    """The settings of a judge that behaves so; what it is asked is added to `asked`."""

    def watched(request: ChatRequest) -> Reply:
        asked.append(request)
        return behaviour(request)

    server, variable = loopback(watched), f"{provider.upper()}_API_KEY"
    monkeypatch.setenv(variable, server.key)
    url = server.anthropic_url if provider == "anthropic" else server.openai_url
    return RewardSettings(model=f"{provider}/judge@{url}", api_key_env=variable, attempts=1, **settings)
