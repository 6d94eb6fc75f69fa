"""What the same command would do again, from the inputs of plan, stages and run: compares digests, loads no model."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pipeline import rewards, sources
from pipeline.config.settings import CurationConfig
from pipeline.errors import CurationError
from pipeline.labels.loading import open_tokenizer
from pipeline.models.local import catalog
from pipeline.models.local.download import cache_folder
from pipeline.run.context import Context, tokenizer_settings
from pipeline.run.plan import plan_inputs, resolve_entry_stage
from pipeline.run.record import run_inputs
from pipeline.schema import digest
from pipeline.stages.table import UNKNOWN, Inputs, Stage, short_digests
from pipeline.storage.stage_files import StageFile

if TYPE_CHECKING:
    from pipeline.models.chat import ChatModel


class LightContext(Context):
    """A context that loads no model and calls none: inputs that would take either are UNKNOWN.

    source_digest: of a source on this machine; UNKNOWN for others, which are not looked at.
    """

    def __init__(self, config: CurationConfig, entry_stage: str) -> None:
        """entry_stage: where rows enter if that can't be read from the source; see `source.enters_at`."""
        self.source_digest: Any = UNKNOWN
        with suppress(OSError, ValueError, CurationError):
            if config.source.input is not None and Path(config.source.input).exists():
                source = sources.resolve_source(config.source, _ignore)
                config = resolve_entry_stage(config, sources.open_adapters(config.source, source, _ignore))
                self.source_digest = source.digest
        if config.source.enters_at == "auto":
            source_settings = config.source.model_copy(update={"enters_at": entry_stage})
            config = config.model_copy(update={"source": source_settings})
        super().__init__(config)

    @cached_property
    def reward_digest(self) -> Any:
        settings = self.config.reward
        if not self.config.needs_rewards:
            return None
        if any(rewards.reward_kind(member.model) == "hf" for member in rewards.member_settings(settings)):
            return UNKNOWN
        # A judge's digest is made of its name and prompt; its model is only stored.
        return rewards.load_reward(settings, lambda member: cast("ChatModel", None)).digest

    @cached_property
    def tokenizer_fingerprint(self) -> Any:
        name, settings = tokenizer_settings(self.config)
        embedded = name.removeprefix("local/")
        path = cache_folder() / catalog.get(embedded).filename if embedded != name else Path(name)
        return open_tokenizer(name, settings).fingerprint if path.exists() else UNKNOWN


def _ignore(message: str) -> None: ...


def changed_in_run(context: LightContext, known: dict[str, str]) -> tuple[list[str], str | None]:
    """Names of the run's inputs that differ from those `known` by short digests; and the run's digest, None if unknown."""
    inputs = run_inputs(context.config, context.source_digest)
    return _changed(short_digests(inputs), known), None if UNKNOWN in inputs.values() else digest(*inputs.values())


def changed_in_plan(context: LightContext, known: dict[str, str], *, limited: bool) -> list[str]:
    """Names of the plan's inputs that differ. limited: whether the limit of the last run is known."""
    inputs = plan_inputs(context.config, context.source_digest)
    if limited:
        inputs["source.limit"] = context.config.source.limit
    return _changed(short_digests(inputs), known)


def changed_in_shard(facts: StageFile, stage: Stage, inputs: Inputs, source: StageFile) -> list[str]:
    """Names of the inputs that a shard was not made from; none when its digest is the one that a run would want."""
    known = UNKNOWN not in inputs.values()
    if known and facts.digest == digest(stage.digest(inputs), source.content):
        return []
    changed = _changed(stage.short_digests(inputs, source.content), facts.inputs)
    return changed or (["the stage's inputs"] if known else [])


def _changed(inputs: dict[str, str], known: dict[str, str]) -> list[str]:
    return [name for name, value in inputs.items() if known.get(name, value) != value]
