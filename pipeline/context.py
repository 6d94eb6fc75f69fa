"""What a process needs to work on shards: journal, budget, models, reward, tokenizer, prompts; each made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import rapidfuzz

from pipeline import rewards, schema
from pipeline.config import CurationConfig, digest
from pipeline.errors import ConfigError
from pipeline.labels.tokenization import LabelTokenizer, load_tokenizer
from pipeline.models import catalog, connect
from pipeline.models.chat import ChatModel
from pipeline.models.journal import Journal
from pipeline.models.money import Budget
from pipeline.models.spec import ModelSpec
from pipeline.prompts import Prompts

# Raise a stage's number when its code gives other results for the same input; files made by the old code are then redone.
CODE = {"sample": 1, "score": 1, "select": 1, "revise": 1, "filter": 1, "label": 1}


class Context:
    """One run's settings with the things made from them."""

    def __init__(self, config: CurationConfig) -> None:
        self.config = config
        self.work = config.out / "work"

    @cached_property
    def journal(self) -> Journal:
        return Journal(self.work / "journal.db")

    @cached_property
    def budget(self) -> Budget:
        return Budget(self.config.run.budget_usd, self.journal.spent())

    @cached_property
    def policy(self) -> ChatModel:
        return self._chat_model(self.config.policy)

    @cached_property
    def reviser(self) -> ChatModel:
        return self._chat_model(self.config.reviser)

    def _chat_model(self, settings: Any) -> ChatModel:
        return connect.chat_model(settings, journal=self.journal, budget=self.budget, local_file=_local_file)

    @cached_property
    def reward(self) -> rewards.RewardModel:
        return rewards.load(self.config.reward)

    @cached_property
    def prompts(self) -> Prompts:
        return Prompts(self.config.reviser.prompts)

    @cached_property
    def tokenizer(self) -> LabelTokenizer:
        settings = self.config.labels
        if settings.tokenizer != "policy":
            return load_tokenizer(settings.tokenizer, settings, settings.tokenizer)
        spec = policy_tokenizer(self.config)
        from pipeline.labels.gguf_tokenizer import tokenizer_folder

        file = _local_file(spec.name)
        return load_tokenizer(tokenizer_folder(file, file.with_suffix(".tokenizer")), settings, str(spec))

    def prepare(self) -> Context:
        """Make everything now: before the first call is paid, and before threads could each make their own."""
        _ = self.prompts, self.reward, self.tokenizer, self.journal, self.budget, self.policy, self.reviser
        return self

    def stage_digest(self, stage: str, thresholds: dict[str, float | None] | None) -> str:
        """Covers everything but the input that determines a stage's output."""
        config = self.config
        parts: dict[str, Callable[[], list[Any]]] = {
            "sample": lambda: [config.policy.data_settings(), connect.identity(ModelSpec.parse(config.policy.model))],
            "score": lambda: [config.reward.data_settings(), self.reward.digest],
            "select": lambda: [thresholds],
            "revise": lambda: [
                config.reviser.data_settings() | {"prompts": self.prompts.digest},
                connect.identity(ModelSpec.parse(config.reviser.model)),
            ],
            "filter": lambda: [config.filter.data_settings(), self.reward.digest, *self._tokenization()],
            "label": lambda: [config.labels.data_settings(), rapidfuzz.__version__],
        }
        return digest(stage, CODE[stage], schema.SCHEMA_VERSION, *parts[stage]())

    def _tokenization(self) -> list[Any]:
        return [self.tokenizer.fingerprint, self.config.labels.template, self.config.labels.max_length]


def policy_tokenizer(config: CurationConfig) -> ModelSpec:
    """The local policy whose tokenizer labels are made for. Raises ConfigError when the policy isn't local."""
    spec = ModelSpec.parse(config.policy.model)
    if spec.provider != "local":
        raise ConfigError(
            f"labels.tokenizer=policy needs a local policy, and policy.model is {spec}: set labels.tokenizer to the Hub id "
            "or folder of the tokenizer of the model that you will train"
        )
    return spec


def check(config: CurationConfig) -> None:
    """Refuse settings that can't work, before anything is loaded or paid. Raises ConfigError."""
    connect.check("policy.model", ModelSpec.parse(config.policy.model), config.run.budget_usd)
    connect.check("reviser.model", ModelSpec.parse(config.reviser.model), config.run.budget_usd)
    rewards.check(config.reward)
    Prompts(config.reviser.prompts)
    if config.labels.tokenizer == "policy":
        policy_tokenizer(config)
    elif config.labels.tokenizer.startswith((".", "/", "~")) and not Path(config.labels.tokenizer).is_dir():
        raise ConfigError(f"labels.tokenizer {config.labels.tokenizer}: no such folder")


def _local_file(name: str) -> Path:
    from pipeline.models.fetch import fetch

    return fetch(catalog.get(name))
