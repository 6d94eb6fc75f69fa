"""Reward models: R(X, Y) as one number, higher is better.

    local/reward-head                       embedded.py   the default: linear heads on the text features of features.py
    hf/ORG/NAME                             hf.py         a sequence classifier of transformers, in this process
    vllm/ openrlhf/ http/NAME@URL           servers.py    a reward server
    openai/ anthropic/ local/NAME           judge.py      a language model as judge
    several of them, with commas            base.Ensemble

`load_reward` opens the model of the settings; `base.score_items` calls it. `load_judge` opens the filter's judge of revisions.
check.py compares a model with pairs of which the better answer is known, and diagnostics.py measures how far scores can be
trusted.
"""

from collections.abc import Callable
from typing import Any

from pipeline.config.model_names import SERVERS, ModelSpec
from pipeline.config.settings import RewardSettings
from pipeline.errors import ConfigError
from pipeline.labels.loading import folder_digest
from pipeline.models import factory
from pipeline.models.chat import ChatModel
from pipeline.models.keys import read_key
from pipeline.prompts import JudgePrompts
from pipeline.rewards.base import Ensemble, RewardModel
from pipeline.rewards.embedded import EmbeddedReward
from pipeline.rewards.hf import SequenceClassifierReward
from pipeline.rewards.judge import PairwiseJudge, PointwiseJudge, RevisionJudge
from pipeline.rewards.servers import ServerReward, server_api

EMBEDDED = "reward-head"


def member_settings(settings: RewardSettings) -> list[RewardSettings]:
    """The settings of each model of an ensemble; a single model is its own only member."""
    models = settings.model.split(",")
    keys = (settings.api_key_env or "").split(",")
    if len(keys) != len(models):
        # A single name is the key of the only model that has an address.
        remote = [ModelSpec.parse(model).provider not in ("local", "hf") for model in models]
        keys = [keys[0] if takes and remote.count(True) == 1 else "" for takes in remote]
    pairs = zip(models, keys, strict=True)
    return [settings.model_copy(update={"model": model, "api_key_env": key or None}) for model, key in pairs]


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
    return "hf" if spec.provider == "hf" else "server" if spec.provider in SERVERS else "judge"


def check_settings(settings: RewardSettings, budget_usd: float | None = None, *, judged: bool = False) -> None:
    """Refuse settings that can't work, before anything is loaded. Raises ConfigError. judged: the filter has a judge."""
    members = member_settings(settings)
    if settings.api_key_env and not any(member.api_key_env for member in members):
        wanted = f"{len(members)} names with commas, one per model and empty where none is needed"
        raise ConfigError(f"reward.api_key_env: expected {wanted}, got {settings.api_key_env}")
    for numbers in (settings.centres, settings.spreads):
        if numbers and len(numbers) != len(members):
            raise ConfigError(
                f"reward.centres and reward.spreads: expected {len(members)} numbers, one per model, got {len(numbers)}"
            )
    if settings.mode == "batch" and not judge_settings(settings) and not judged:
        raise ConfigError("reward.mode=batch is for language models as judges; leave it at live")
    for member in members:
        spec, kind = ModelSpec.parse(member.model), reward_kind(member.model)
        if kind in ("embedded", "hf") and spec.base_url:
            raise ConfigError(f"reward.model: {spec.provider}/{spec.name} runs here and has no address")
        if kind == "server":
            server_api(member)
            read_key("reward.model", spec, member.api_key_env)
        if kind == "judge":
            factory.check("reward", member, budget_usd)
            JudgePrompts(settings.judge, settings.prompts)


def check_judge(settings: RewardSettings, budget_usd: float | None = None) -> None:
    """The same for the filter's judge, which is called as `settings` say."""
    if reward_kind(settings.model) != "judge":
        raise ConfigError(
            f"filter.judge: {settings.model} scores answers; a judge is openai/, anthropic/ or local/NAME"
        )
    factory.check("reward", settings, budget_usd, "filter.judge")
    RevisionJudge.prompts(settings)


def load_judge(settings: RewardSettings, open_chat: Callable[[RewardSettings], ChatModel]) -> RevisionJudge:
    """The filter's judge of revisions."""
    return RevisionJudge(settings, open_chat(settings))


def identify_judge(settings: RewardSettings) -> list[Any]:
    """For a digest: the judge's model and prompt, and how it is called."""
    called = {name: getattr(settings, name) for name in ("temperature", "max_tokens", "seed", "logprobs", "extra")}
    prompts = RevisionJudge.prompts(settings)
    return [factory.identity(ModelSpec.parse(settings.model)), prompts.digest, called]


def identify_models(settings: RewardSettings) -> list[Any]:
    """For a digest: the members' files and prompts, as far as they are known without loading a model."""
    identities: list[Any] = []
    for member in member_settings(settings):
        spec, kind = ModelSpec.parse(member.model), reward_kind(member.model)
        if kind == "hf":
            identities.append(folder_digest(spec.name, weights=True))
        elif kind == "judge":
            identities.append([factory.identity(spec), JudgePrompts(member.judge, member.prompts).digest])
        elif kind == "embedded":
            identities.append(EmbeddedReward().digest)
    return identities


def load_reward(settings: RewardSettings, open_chat: Callable[[RewardSettings], ChatModel]) -> RewardModel:
    """The reward model that `settings` name. open_chat opens the language model of a judge."""
    # Only the whole run's check knows whether `mode` is for the filter's judge.
    check_settings(settings, judged=True)
    members = [_load_member(member, open_chat) for member in member_settings(settings)]
    return members[0] if len(members) == 1 else Ensemble(members, settings)


def _load_member(settings: RewardSettings, open_chat: Callable[[RewardSettings], ChatModel]) -> RewardModel:
    match reward_kind(settings.model):
        case "embedded":
            return EmbeddedReward()
        case "hf":
            return SequenceClassifierReward(settings)
        case "server":
            return ServerReward(settings)
    judge = PairwiseJudge if settings.judge == "pairwise" else PointwiseJudge
    return judge(settings, open_chat(settings))
