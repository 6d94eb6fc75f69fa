"""What a process needs to work on shards: journal, budget, models, reward, tokenizer, prompts; each made once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import rapidfuzz

from pipeline import entry, parts, rewards, schema
from pipeline.config import CurationConfig, FilterSettings, PolicySettings, ReviserSettings, digest
from pipeline.config_reward import RewardSettings
from pipeline.errors import ConfigError
from pipeline.labels.tokenization import LabelTokenizer
from pipeline.models import batch_ledger, catalog, connect
from pipeline.models.chat import ChatModel
from pipeline.models.journal import Journal
from pipeline.models.money import Budget
from pipeline.models.spec import ModelSpec
from pipeline.prompts import Prompts
from pipeline.stages import sentences
from pipeline.stages.candidates import Choose, chooser
from pipeline.stages.revise import several, style_of
from pipeline.storage.location import journal_of
from pipeline.tokenizers import open_tokenizer

# Raise a stage's number when its code gives other results for the same input; files made by the old code are then redone.
CODE = {"sample": 1, "score": 1, "select": 1, "revise": 2, "filter": 2, "label": 2}

# Each row that waits for a batch keeps about 16 kB in memory.
_ROWS_IN_BATCHES = 50_000


class RowsInFlight:
    """Lets shards in as long as they have at most so many rows together; a larger one alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows = 0
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, rows: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._rows or self._rows + rows <= self._most)
            self._rows += rows
        try:
            yield
        finally:
            with self._changed:
                self._rows -= rows
                self._changed.notify_all()


class Context:
    """One run's settings with the things made from them."""

    def __init__(self, config: CurationConfig) -> None:
        self.config = config
        self.work = config.out / "work"
        # Set when the run ends early: no shard begins a further stage.
        self.stopped = threading.Event()
        self._places = threading.BoundedSemaphore(config.run.workers)
        self._waiting = RowsInFlight(_ROWS_IN_BATCHES)
        self._digests: dict[tuple[str, str], str] = {}

    def place(self, stage: str, rows: int) -> AbstractContextManager[Any]:
        """One of the `run.workers` places for a stage at work; a stage that waits for a batch takes none of them."""
        config = self.config
        stages: dict[str, list[PolicySettings | ReviserSettings | RewardSettings]] = {
            "sample": [config.policy],
            "score": [config.reward],
            # The best of several revisions is chosen by the reward.
            "revise": [config.reviser, config.reward],
            "filter": [config.reward],
        }
        batched = any(asked.mode == "batch" for asked in stages.get(stage, []))
        return self._waiting.holding(rows) if batched else self._places

    @cached_property
    def journal(self) -> Journal:
        # The workers of a standing cluster may be on any machine.
        run = self.config.run
        # Whoever has the run's lock, and no other process at work for it, writes answers alone.
        alone = run.runner == "threads" and not run.runner_address
        return Journal(journal_of(self.config.out), across_machines=bool(run.runner_address), alone=alone)

    @cached_property
    def budget(self) -> Budget:
        limit = self.config.run.budget_usd
        held = {} if limit is None else batch_ledger.holds(self.journal.path)
        return Budget(limit, self.journal.spent(), held)

    @cached_property
    def policy(self) -> ChatModel:
        return self._chat_model(self.config.policy)

    @cached_property
    def reviser(self) -> ChatModel:
        return self._chat_model(self.config.reviser)

    def _chat_model(self, settings: Any) -> ChatModel:
        return connect.chat_model(settings, journal=self.journal, budget=self.budget, local_file=local_file)

    @cached_property
    def reward(self) -> rewards.RewardModel:
        return rewards.load_reward(self.config.reward, self._chat_model)

    @property
    def models(self) -> list[ChatModel]:
        """The language models that this run asks."""
        writers = [self.policy, self.reviser] if entry.asks_models(self.config) else []
        return [*writers, *(self.reward.chat_models if entry.scores(self.config) else [])]

    @cached_property
    def prompts(self) -> Prompts:
        return Prompts(self.config.reviser.prompts)

    @cached_property
    def parts(self) -> dict[str, dict[str, str]]:
        return parts.by_stage(self.config)

    @cached_property
    def tokenizer(self) -> LabelTokenizer:
        settings = self.config.labels
        name = str(policy_tokenizer(self.config)) if settings.tokenizer == "policy" else settings.tokenizer
        # Answers that were brought were not sampled under the embedded policy's own system prompt.
        policy = self.config.policy
        asked = connect.system_prompt(policy) if entry.asks_models(self.config) else policy.system
        system = asked if settings.system is None else settings.system
        return open_tokenizer(name, settings.model_copy(update={"system": system or None}))

    def prepare(self) -> Context:
        """Make everything now: before the first call is paid, and before threads could each make their own."""
        _ = self.prompts, self.tokenizer, self.journal, self.budget
        if entry.asks_models(self.config):
            _ = self.policy, self.reviser
        if entry.scores(self.config):
            _ = self.reward
        return self

    @cached_property
    def gates(self) -> FilterSettings:
        """The filter's settings; without one of its own, splices of small models have to come nearer to the reference."""
        settings = self.config.filter
        spliced = entry.asks_models(self.config) and style_of(self.config.reviser) == "sentences"
        return (
            settings.model_copy(update={"min_rouge_gain": sentences.ROUGE_GAIN})
            if spliced and settings.min_rouge_gain is None
            else settings
        )

    @cached_property
    def choose(self) -> Choose | None:
        """Which of several revisions goes on; None where there is but one."""
        return chooser(self.gates, self.tokenizer, self.reward) if several(self.config.reviser) else None

    def stage_digest(self, stage: str, thresholds: dict[str, float | None] | None) -> str:
        """Covers everything but the input that determines a stage's output."""
        named = (stage, json.dumps(thresholds))
        if named not in self._digests:
            self._digests[named] = self._stage_digest(stage, thresholds)
        return self._digests[named]

    def _stage_digest(self, stage: str, thresholds: dict[str, float | None] | None) -> str:
        config = self.config
        settings: dict[str, Callable[[], list[Any]]] = {
            "sample": lambda: [
                self._policy_settings(),
                connect.identity(ModelSpec.parse(config.policy.model)),
                connect.system_prompt(config.policy),
            ],
            "score": lambda: [rewards.data_settings(config.reward), self.reward.digest],
            "select": lambda: [thresholds, *([config.policy.pick] if config.policy.samples > 1 else [])],
            "revise": lambda: [
                config.reviser.data_settings() | {"prompts": self.prompts.digest},
                connect.identity(ModelSpec.parse(config.reviser.model)),
                *(self._gating() if several(config.reviser) else []),
            ],
            "filter": self._gating,
            "label": lambda: [config.labels.data_settings(), rapidfuzz.__version__],
        }
        return digest(stage, CODE[stage], schema.SCHEMA_VERSION, *settings[stage]())

    def _policy_settings(self) -> dict[str, Any]:
        settings = self.config.policy.data_settings()
        return {name: value for name, value in settings.items() if name not in parts.OF_SAMPLES}

    def _gating(self) -> list[Any]:
        scores = entry.scores(self.config)
        return [self.gates.data_settings(), self.reward.digest if scores else None, *self._tokenization()]

    def _tokenization(self) -> list[Any]:
        labels = self.config.labels
        return [self.tokenizer.fingerprint, labels.max_length, labels.overlong, labels.granularity != "token"]


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
    if entry.asks_models(config):
        for role, settings in (("policy", config.policy), ("reviser", config.reviser)):
            connect.check(f"{role}.model", ModelSpec.parse(settings.model), config.run.budget_usd, settings.mode)
    if config.batched and config.run.runner != "threads":
        raise ConfigError(
            f"run.runner={config.run.runner} and mode=batch don't go together: requests of all shards must meet in one "
            "process; leave run.runner at threads"
        )
    if entry.scores(config):
        rewards.check_settings(config.reward, config.run.budget_usd)
        if (
            config.selection.eta2 is not None
            and rewards.compares_with_reference(config.reward)
            and entry.asks_models(config)
        ):
            raise ConfigError(
                "reward.judge=pairwise compares an answer with the reference, whose own score is always 0, and η2 is a bound "
                "of that: set selection.eta2=off"
            )
    Prompts(config.reviser.prompts)
    if config.labels.tokenizer == "policy":
        policy_tokenizer(config)
    elif config.labels.tokenizer.startswith((".", "/", "~")) and not Path(config.labels.tokenizer).is_dir():
        raise ConfigError(f"labels.tokenizer {config.labels.tokenizer}: no such folder")


def local_file(name: str) -> Path:
    from pipeline.models.fetch import fetch

    return fetch(catalog.get(name))
