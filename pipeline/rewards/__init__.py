"""Reward models: R(X, Y) as one number, higher is better.

    local/reward-head                       embedded.py   the default: a small head on text features
    hf/ORG/NAME                             hf.py         a sequence classifier of transformers, in this process
    vllm/ openrlhf/ http/NAME@URL           servers.py    a reward server
    openai/ anthropic/ local/NAME           judge.py      a language model as judge
    several of them, with commas            ensemble.py

All are called through `scores`. A score depends on its own row alone, never on the batch it came in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.config.model_names import SERVERS, ModelSpec
from pipeline.config.reward import RewardSettings
from pipeline.errors import ConfigError, RowReject
from pipeline.labels.model_files import folder_digest
from pipeline.models import factory
from pipeline.models.chat import ChatModel
from pipeline.prompts import JudgePrompts

EMBEDDED = "reward-head"
Item = tuple[list[dict[str, str]], str]
_turn = itemgetter("role", "content")
# Not always finite: who uses it has to look.
Score = float | RowReject


class RewardModel(Protocol):
    """What scores answers. `digest` changes whenever the scores could.

    It may have further attributes: `facts`, for the manifest; `chunk`, the rows that it wants at a time, 0 for all; and
    `against(items, references)` in place of `score`, if what it says of an answer depends on the row's reference.
    """

    name: str
    digest: str

    def score(self, items: Sequence[Item]) -> Sequence[Score] | npt.NDArray[np.float32]:
        """Scores of (messages, answer) items, one each, in their order; a batch's make-up must not matter."""
        ...


def scores(reward: RewardModel, items: Sequence[Item], references: Sequence[str]) -> list[Score]:
    """One score or reject an item, in order. references: each item's reference answer. Equal items are scored once."""
    place: dict[tuple[object, ...], int] = {}
    at = [
        place.setdefault((answer, reference, *map(_turn, messages)), len(place))
        for (messages, answer), reference in zip(items, references, strict=True)
    ]
    first = dict(zip(reversed(at), reversed(range(len(at))), strict=True))
    asked = [first[n] for n in range(len(place))]
    chosen = [items[n] for n in asked]
    against = getattr(reward, "against", None)
    given = against(chosen, [references[n] for n in asked]) if against else reward.score(chosen)
    told = [score if isinstance(score, RowReject) else float(score) for _, score in zip(chosen, given, strict=True)]
    return [told[n] for n in at]


def chunk(reward: RewardModel, usual: int) -> int:
    """How many rows to hand over at a time; 0: all that there are."""
    return int(getattr(reward, "chunk", usual))


def describe(reward: RewardModel) -> dict[str, Any]:
    """What the manifest says of a reward model."""
    return {"name": reward.name, "digest": reward.digest, **getattr(reward, "facts", {})}


def members(settings: RewardSettings) -> list[RewardSettings]:
    """The settings of each model of an ensemble; of a single one, those settings."""
    return [settings.model_copy(update={"model": model}) for model in settings.model.split(",")]


def judges(settings: RewardSettings) -> list[RewardSettings]:
    """The settings of those members that are language models, and are asked, and perhaps paid, like others."""
    return [each for each in members(settings) if kind(each.model) == "judge"]


def compares(settings: RewardSettings) -> bool:
    """Whether a score says only how an answer compares with the row's reference."""
    return settings.judge == "pairwise" and len(judges(settings)) == len(members(settings))


def kind(model: str) -> str:
    """embedded, hf, server or judge."""
    spec = ModelSpec.parse(model)
    if spec.provider == "local" and spec.name == EMBEDDED:
        return "embedded"
    return {"hf": "hf", **dict.fromkeys(SERVERS, "server")}.get(spec.provider, "judge")


def check(settings: RewardSettings, budget_usd: float | None = None) -> None:
    """Refuse a reward model that can't exist, before anything is loaded. Raises ConfigError."""
    each = members(settings)
    for given in (settings.centres, settings.spreads):
        if given and len(given) != len(each):
            raise ConfigError(
                f"reward.centres and reward.spreads: expected {len(each)} numbers, one a model, got {len(given)}"
            )
    if settings.mode == "batch" and not judges(settings):
        raise ConfigError("reward.mode=batch is for language models as judges; leave it at live")
    for one in each:
        spec = ModelSpec.parse(one.model)
        if kind(one.model) == "server" and not spec.base_url:
            raise ConfigError(f"reward.model: {spec} needs an address, as in {spec.provider}/NAME@http://host:8000")
        if kind(one.model) in ("embedded", "hf") and spec.base_url:
            raise ConfigError(f"reward.model: {spec.provider}/{spec.name} runs here and has no address")
        if kind(one.model) == "server":
            from pipeline.rewards.servers import wire

            wire(one)
        if kind(one.model) == "judge":
            factory.check("reward.model", spec, budget_usd, settings.mode)
            JudgePrompts(settings.judge, settings.prompts)


def identity(settings: RewardSettings) -> Any:
    """What stands for reward models' files and prompts, as far as it can be had without loading them."""
    found: list[Any] = []
    for each in members(settings):
        spec = ModelSpec.parse(each.model)
        if kind(each.model) == "hf":
            # None for a Hub id.
            found.append(folder_digest(spec.name, weights=True))
        elif kind(each.model) == "judge":
            found.append([factory.identity(spec), prompts_digest(settings)])
        elif kind(each.model) == "embedded":
            found.append(_embedded().digest)
    return found


def prompts_digest(settings: RewardSettings) -> str | None:
    """Of the judges' prompt; None when there is no judge."""
    return JudgePrompts(settings.judge, settings.prompts).digest if judges(settings) else None


def data_settings(settings: RewardSettings) -> dict[str, Any]:
    """For a digest: without the folder of the prompts, whose content is in the digest of the model."""
    return {name: value for name, value in settings.data_settings().items() if name != "prompts"}


def load(settings: RewardSettings, chat: Callable[[RewardSettings], ChatModel]) -> RewardModel:
    """The reward model that `settings` name. chat: makes the model that a judge asks."""
    each = members(settings)
    if len(each) > 1:
        from pipeline.rewards.ensemble import Ensemble

        return Ensemble([load(one.model_copy(update={"centres": (), "spreads": ()}), chat) for one in each], settings)
    check(settings)
    spec = ModelSpec.parse(settings.model)
    if kind(settings.model) == "hf":
        from pipeline.rewards.hf import SequenceClassifierReward

        return SequenceClassifierReward(spec.name, settings)
    if kind(settings.model) == "server":
        from pipeline.rewards.servers import ServerReward

        return ServerReward(settings)
    if kind(settings.model) == "judge":
        from pipeline.rewards.judge import PairwiseJudge, PointwiseJudge

        judge = PairwiseJudge if settings.judge == "pairwise" else PointwiseJudge
        return judge(settings, chat(settings))
    return _embedded()


def _embedded() -> RewardModel:
    from pipeline.rewards.embedded import EmbeddedReward

    return EmbeddedReward()
