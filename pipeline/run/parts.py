"""What a stage's digest is made of, part by part, so that a changed one can be named: short digests kept with each shard, and
those of the source with the plan.

They only explain. Whether a shard is done is decided by the whole digest, which covers more: models' files, the tokenizer.
"""

from __future__ import annotations

from typing import Any

from pipeline import rewards, schema
from pipeline.config.settings import CurationConfig
from pipeline.schema import digest

_SECTION = {
    "sample": "policy",
    "score": "reward",
    "select": "selection",
    "revise": "reviser",
    "filter": "filter",
    "label": "labels",
}
# Of the policy's settings those that the plan and the stage select depend on, and its answers don't.
OF_SAMPLES = ("samples", "pick")
CONTENT = "the source's content"
# The filter stage tokenises, and so depends on some settings of the labels.
_TOKENIZING = ("tokenizer", "template", "template_options", "date", "system", "max_length", "overlong")


def by_stage(config: CurationConfig) -> dict[str, dict[str, str]]:
    """Short digests of a configuration's data settings, by stage and name, e.g. sample: {policy.temperature: 1f0c…}."""
    from pipeline.prompts import Prompts
    from pipeline.run.context import CODE
    from pipeline.stages.revise import several

    found = {}
    for stage, section in _SECTION.items():
        settings = getattr(config, section).data_settings()
        named: dict[str, Any] = {f"{section}.{name}": value for name, value in settings.items()}
        if stage == "sample":
            for name in OF_SAMPLES:
                del named[f"policy.{name}"]
        if stage == "select":
            named["policy.pick"] = config.policy.pick
        if stage == "filter":
            labels = config.labels.data_settings()
            named |= {f"labels.{name}": labels[name] for name in _TOKENIZING}
        if stage == "score":
            named["reward.prompts"] = rewards.prompts_digest(config.reward)
        if stage == "revise":
            named["reviser.prompts"] = Prompts(config.reviser.prompts).digest
            if several(config.reviser):  # which of them goes on is up to the filter
                named |= {f"filter.{name}": value for name, value in config.filter.data_settings().items()}
        named["the program"] = [CODE[stage], schema.SCHEMA_VERSION]
        found[stage] = {name: short(digest(value)) for name, value in named.items()}
    return found


def of_plan(config: CurationConfig) -> dict[str, str]:
    """Likewise of what is read. Where files lie is no part of it, and what they hold is another: see `plan.py`."""
    named = {**config.source.data_settings(), "limit": config.source.limit}
    left_out = ("input", "decontaminate", "enters_at")
    found = {f"source.{name}": value for name, value in named.items() if name not in left_out}
    return {name: short(digest(value)) for name, value in (found | {"policy.samples": config.policy.samples}).items()}


def short(sha256: str) -> str:
    return sha256[:8]
