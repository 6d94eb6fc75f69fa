"""Reward models: R(X, Y) as one number, higher is better.

    local/reward-head                       embedded.py   the default: a linear head on text features
    hf/ORG/NAME                             hf.py         a sequence classifier of transformers, in this process
    vllm/ openrlhf/ http/NAME@URL           servers.py    a reward server
    openai/ anthropic/ local/NAME           judge.py      a language model as judge
    several of them, with commas            ensemble.py

`load_reward` opens the model of the settings and `score_items` calls it. check.py compares a model with pairs of which the
better answer is known; diagnostics.py measures how far scores can be trusted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config_reward import RewardSettings
from pipeline.errors import ConfigError, RowReject
from pipeline.model_files import folder_digest
from pipeline.models import connect
from pipeline.models.chat import ChatModel
from pipeline.models.spec import SERVERS, ModelSpec
from pipeline.prompts import JudgePrompts

EMBEDDED = "reward-head"
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
    keys = [
        (answer, reference, *((message["role"], message["content"]) for message in messages))
        for (messages, answer), reference in zip(items, references, strict=True)
    ]
    first: dict[tuple[object, ...], int] = {}
    for index, key in enumerate(keys):
        first.setdefault(key, index)
    scores = reward.score([items[n] for n in first.values()], [references[n] for n in first.values()])
    by_key = {
        key: score if isinstance(score, RowReject) else float(score) for key, score in zip(first, scores, strict=True)
    }
    return [by_key[key] for key in keys]


def member_settings(settings: RewardSettings) -> list[RewardSettings]:
    """The settings of each model of an ensemble; a single model is its own only member."""
    return [settings.model_copy(update={"model": model}) for model in settings.model.split(",")]


def judge_settings(settings: RewardSettings) -> list[RewardSettings]:
    """The settings of those members that are language models."""
    return [member for member in member_settings(settings) if reward_kind(member.model) == "judge"]


def compares_with_reference(settings: RewardSettings) -> bool:
    """Whether scores only compare an answer with the row's reference."""
    return settings.judge == "pairwise" and len(judge_settings(settings)) == len(member_settings(settings))


def reward_kind(model: str) -> str:
    """embedded, hf, server or judge."""
    spec = ModelSpec.parse(model)
    if spec.provider == "local" and spec.name == EMBEDDED:
        return "embedded"
    if spec.provider == "hf":
        return "hf"
    return "server" if spec.provider in SERVERS else "judge"


def check_settings(settings: RewardSettings, budget_usd: float | None = None) -> None:
    """Refuse settings that can't work, before anything is loaded. Raises ConfigError."""
    members = member_settings(settings)
    for numbers in (settings.centres, settings.spreads):
        if numbers and len(numbers) != len(members):
            raise ConfigError(
                f"reward.centres and reward.spreads: expected {len(members)} numbers, one per model, got {len(numbers)}"
            )
    if settings.mode == "batch" and not judge_settings(settings):
        raise ConfigError("reward.mode=batch is for language models as judges; leave it at live")
    for member in members:
        spec, kind = ModelSpec.parse(member.model), reward_kind(member.model)
        if kind in ("embedded", "hf") and spec.base_url:
            raise ConfigError(f"reward.model: {spec.provider}/{spec.name} runs here and has no address")
        if kind == "server":
            from pipeline.rewards.servers import server_api

            server_api(member)
        if kind == "judge":
            connect.check("reward.model", spec, budget_usd, settings.mode)
            JudgePrompts(settings.judge, settings.prompts)


def identify_models(settings: RewardSettings) -> list[Any]:
    """For a digest: the members' files and prompts, as far as they are known without loading a model."""
    identities: list[Any] = []
    for member in member_settings(settings):
        spec, kind = ModelSpec.parse(member.model), reward_kind(member.model)
        if kind == "hf":
            # None for a Hub id.
            identities.append(folder_digest(spec.name, weights=True))
        elif kind == "judge":
            identities.append([connect.identity(spec), prompts_digest(settings)])
        elif kind == "embedded":
            from pipeline.rewards.embedded import EmbeddedReward

            identities.append(EmbeddedReward().digest)
    return identities


def prompts_digest(settings: RewardSettings) -> str | None:
    """The digest of the judges' prompt; None when there is no judge."""
    return JudgePrompts(settings.judge, settings.prompts).digest if judge_settings(settings) else None


def data_settings(settings: RewardSettings) -> dict[str, Any]:
    """For a digest: without the folder of the prompts, whose content is in the digest of the model."""
    return {name: value for name, value in settings.data_settings().items() if name != "prompts"}


def load_reward(settings: RewardSettings, open_chat: Callable[[RewardSettings], ChatModel]) -> RewardModel:
    """The reward model that `settings` name. open_chat opens the language model of a judge."""
    check_settings(settings)
    members = [_load_member(member, open_chat) for member in member_settings(settings)]
    if len(members) == 1:
        return members[0]
    from pipeline.rewards.ensemble import Ensemble

    return Ensemble(members, settings)


def _load_member(settings: RewardSettings, open_chat: Callable[[RewardSettings], ChatModel]) -> RewardModel:
    kind = reward_kind(settings.model)
    if kind == "embedded":
        from pipeline.rewards.embedded import EmbeddedReward

        return EmbeddedReward()
    if kind == "hf":
        from pipeline.rewards.hf import SequenceClassifierReward

        return SequenceClassifierReward(settings)
    if kind == "server":
        from pipeline.rewards.servers import ServerReward

        return ServerReward(settings)
    from pipeline.rewards.judge import PairwiseJudge, PointwiseJudge

    judge = PairwiseJudge if settings.judge == "pairwise" else PointwiseJudge
    return judge(settings, open_chat(settings))
