"""What a process needs to work on shards: journal, budget, models, reward, tokenizer, prompts; each created once."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self, cast

from pipeline import rewards, sources
from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import CurationConfig, FilterSettings, LabelSettings
from pipeline.errors import ConfigError
from pipeline.labels.loading import is_shipped, open_tokenizer
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.models import factory
from pipeline.models.batch import ledger
from pipeline.models.chat import ChatModel
from pipeline.models.cost import Budget
from pipeline.models.journal import Journal
from pipeline.models.journal_files import own_journal
from pipeline.models.local import catalog, download
from pipeline.prompts import Prompts
from pipeline.rewards.base import RewardModel
from pipeline.rewards.judge import RevisionJudge
from pipeline.run.record import Paid
from pipeline.stages.filter import Choose, chooser
from pipeline.stages.revise import several
from pipeline.stages.revision_checks import REFERENCE_DISTANCE
from pipeline.stages.table import UNKNOWN
from pipeline.storage.location import journal_of

# Each row that waits for a batch keeps about 16 kB in memory.
_ROWS_IN_BATCHES = 50_000


class RowsInFlight:
    """Lets shards in while they have at most `most` rows together; a larger shard alone."""

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
    """A run's settings with what is created from them."""

    def __init__(self, config: CurationConfig) -> None:
        self.config = config
        self.work = config.out / "work"
        # Set when the run ends early: no shard begins a further stage.
        self.stopped = threading.Event()
        self._places = threading.BoundedSemaphore(config.run.workers)
        self._waiting = RowsInFlight(_ROWS_IN_BATCHES)
        self._local: dict[str, ChatModel] = {}

    def place(self, stage: str, rows: int) -> AbstractContextManager[Any]:
        """Holds one of the `run.workers` places while a stage works; a stage that waits for a batch holds none."""
        policy, reviser, reward = self.config.policy.mode, self.config.reviser.mode, self.config.reward.mode
        # The best of several revisions is chosen by the reward.
        modes = {"sample": [policy], "score": [reward], "revise": [reviser, reward], "filter": [reward]}
        return self._waiting.holding(rows) if "batch" in modes.get(stage, []) else self._places

    @cached_property
    def journal(self) -> Journal:
        path, run = journal_of(self.config.out), self.config.run
        if run.journal == "own":
            return Journal(own_journal(path), base=path)
        # The workers of a standing cluster may be on any machine.
        return Journal(path, across_machines=bool(run.runner_address))

    @cached_property
    def paid(self) -> Paid:
        return Paid(self.work, self.journal)

    @cached_property
    def budget(self) -> Budget:
        limit = self.config.run.budget_usd
        held = {} if limit is None else ledger.holds(self.journal.path)
        return Budget(limit, self.journal.spent(), held)

    @cached_property
    def policy(self) -> ChatModel:
        return self._chat_model(self.config.policy)

    @cached_property
    def reviser(self) -> ChatModel:
        return self._chat_model(self.config.reviser)

    def _chat_model(self, settings: Any) -> ChatModel:
        if settings.model in self._local:
            return self._local[settings.model]
        model = factory.chat_model(settings, journal=self.journal, budget=self.budget, local_file=local_file)
        if settings.model.startswith("local/"):
            # Two roles of one model share its servers, so they must share the lock on their prompt caches.
            self._local[settings.model] = model
        return model

    @cached_property
    def reward(self) -> RewardModel | None:
        """None where no stage of the run uses one."""
        return rewards.load_reward(self.config.reward, self._chat_model) if self.config.needs_rewards else None

    @cached_property
    def judge(self) -> RevisionJudge | None:
        """The filter's judge of revisions, where the run has one."""
        return rewards.load_judge(self.config.judge, self._chat_model) if self.config.judge else None

    @property
    def reward_digest(self) -> str | None:
        return self.reward.digest if self.reward else None

    @property
    def models(self) -> list[ChatModel]:
        """The language models that this run calls."""
        writers = [self.policy, self.reviser] if self.config.needs_generation else []
        judges = [model for user in (self.reward, self.judge) if user for model in user.chat_models]
        return list(dict.fromkeys([*writers, *judges]))

    @cached_property
    def prompts(self) -> Prompts:
        return Prompts(self.config.reviser.prompts)

    @cached_property
    def tokenizer(self) -> LabelTokenizer:
        return open_tokenizer(*tokenizer_settings(self.config))

    @cached_property
    def tokenizer_fingerprint(self) -> str:
        return self.tokenizer.fingerprint

    @property
    def template_refusals(self) -> Any:
        return self.tokenizer.refusals

    def prepare(self) -> Self:
        """Create everything now: before the first call is paid, and before threads could each create their own."""
        _ = self.prompts, self.tokenizer_fingerprint, self.journal, self.budget, self.reward, self.judge
        if self.config.needs_generation:
            _ = self.policy, self.reviser
        return self

    @cached_property
    def filter_settings(self) -> FilterSettings:
        """As configured, with the defaults that depend on who revised."""
        config, settings, generated = self.config, self.config.filter, self.config.needs_generation
        # A negative gain would turn the weights of reward_weighted around.
        gated = (generated and not config.judges_itself) or config.labels.signal == "reward_weighted"
        defaults = {
            "min_reward_gain": 0.0 if gated else None,
            "min_reference_distance": REFERENCE_DISTANCE if generated else 0.0,
            "reject_contradictions": generated,
        }
        return settings.model_copy(update={k: v for k, v in defaults.items() if getattr(settings, k) is None})

    @cached_property
    def choose(self) -> Choose | None:
        """Chooses among a row's candidates; None where each row has one."""
        if several(self.config.reviser) and self.reward:
            return chooser(self.filter_settings, self.tokenizer, self.reward, self.judge)
        return None


class LightContext(Context):
    """A context that loads and calls no model and looks at no remote source: inputs that would take that are UNKNOWN."""

    def __init__(self, config: CurationConfig, source_digest: Any) -> None:
        super().__init__(config)
        self.source_digest = source_digest

    @cached_property
    def reward_digest(self) -> Any:
        settings = self.config.reward
        if not self.config.needs_rewards:
            return None
        if any(rewards.reward_kind(member.model) == "hf" for member in rewards.member_settings(settings)):
            return UNKNOWN
        # A judge's digest is made of its name and prompt; its model is only stored.
        return rewards.load_reward(settings, lambda member: cast(ChatModel, None)).digest

    @cached_property
    def tokenizer_fingerprint(self) -> Any:
        return self.tokenizer.fingerprint if self._tokenizer_is_here else UNKNOWN

    @property
    def template_refusals(self) -> Any:
        return self.tokenizer.refusals if self._tokenizer_is_here else UNKNOWN

    @cached_property
    def _tokenizer_is_here(self) -> bool:
        name, _ = tokenizer_settings(self.config)
        return Path(name).exists() or (name.startswith("local/") and has_tokenizer(name))


def tokenizer_settings(config: CurationConfig) -> tuple[str, LabelSettings]:
    """The name of the labels' tokenizer, and the label settings with the system prompt that prompts are rendered with."""
    labels, policy = config.labels, config.policy
    name = str(policy_tokenizer(config)) if labels.tokenizer == "policy" else labels.tokenizer
    system = labels.system
    if system is None:
        # Pre-made pairs were not sampled under the embedded policy's own system prompt of today.
        system = factory.system_prompt(policy) if config.needs_generation else policy.system
    if system is None and (pairs := _source_of_pairs(config)):
        system = pairs.system
    return name, labels.model_copy(update={"system": system or None})


def policy_tokenizer(config: CurationConfig) -> ModelSpec:
    """The local policy whose tokenizer labels are made for. Raises ConfigError when the policy isn't local.

    Pre-made pairs whose source names the policy that wrote them are labelled for that one.
    """
    pairs = _source_of_pairs(config)
    spec = ModelSpec.parse(pairs.writers[0] if pairs and pairs.writers[0] != "given" else config.policy.model)
    if spec.provider != "local":
        hint = "set labels.tokenizer to the Hub id or folder of the tokenizer of the model that you will train"
        raise ConfigError(f"labels.tokenizer=policy needs a local policy, and policy.model is {spec}: {hint}")
    return spec


def _source_of_pairs(config: CurationConfig) -> sources.Adapter | None:
    """The one source that pre-made pairs come from; None when answers are generated, or sources are mixed."""
    name = config.source.name.strip()
    return None if config.needs_generation or "," in name else sources.get(name)


def check(config: CurationConfig) -> None:
    """Refuse settings that can't work, before anything is loaded or paid. Raises ConfigError."""
    if config.needs_generation:
        for role, settings in (("policy", config.policy), ("reviser", config.reviser)):
            factory.check(role, settings, config.run.budget_usd)
    if config.batched and config.run.runner != "threads":
        why = "requests of all shards must meet in one process; leave run.runner at threads"
        raise ConfigError(f"run.runner={config.run.runner} and mode=batch don't go together: {why}")
    if config.needs_rewards:
        rewards.check_settings(config.reward, config.run.budget_usd, judged=bool(config.judge))
        selects = config.needs_generation and config.selection.eta2 is not None
        if selects and rewards.compares_with_reference(config.reward):
            why = "compares an answer with the reference, whose own score is always 0, and η2 is a bound of that"
            raise ConfigError(f"reward.judge=pairwise {why}: set selection.eta2=off")
    if config.judge:
        rewards.check_judge(config.judge, config.run.budget_usd)
    Prompts(config.reviser.prompts)
    if config.labels.tokenizer == "policy":
        policy_tokenizer(config)
    elif config.labels.tokenizer.startswith((".", "/", "~")) and not Path(config.labels.tokenizer).is_dir():
        raise ConfigError(f"labels.tokenizer {config.labels.tokenizer}: no such folder")


def is_downloaded(name: str) -> bool:
    """Whether the file of an embedded model, `local/NAME`, is in the cache."""
    return (download.cache_folder() / catalog.get(name.removeprefix("local/")).filename).is_file()


def has_tokenizer(name: str) -> bool:
    """Whether the tokenizer of an embedded model, `local/NAME`, can be opened without a download."""
    return is_shipped(name.removeprefix("local/")) or is_downloaded(name)


def local_file(name: str) -> Path:
    return download.fetch(catalog.get(name))
