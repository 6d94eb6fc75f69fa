"""What a stage's digest is made of, part by part, so that a changed one can be named: short digests kept with each shard, and
those of the source with the plan.

They only explain. Whether a shard is done is decided by the whole digest, which covers more: models' files, the tokenizer.
"""

from __future__ import annotations

from typing import Any

from pipeline import schema
from pipeline.config import CurationConfig, SourceSettings, digest

_SECTION = {
    "sample": "policy",
    "score": "reward",
    "select": "selection",
    "revise": "reviser",
    "filter": "filter",
    "label": "labels",
}
CONTENT = "the source's content"
# The filter stage tokenises, and so depends on some settings of the labels.
_TOKENIZING = ("tokenizer", "template", "template_options", "date", "system", "max_length", "overlong")


def by_stage(config: CurationConfig) -> dict[str, dict[str, str]]:
    """Short digests of a configuration's data settings, by stage and name, e.g. sample: {policy.temperature: 1f0c…}."""
    from pipeline.context import CODE
    from pipeline.prompts import Prompts

    found = {}
    for stage, section in _SECTION.items():
        settings = getattr(config, section).data_settings()
        named: dict[str, Any] = {f"{section}.{name}": value for name, value in settings.items()}
        if stage == "filter":
            labels = config.labels.data_settings()
            named |= {f"labels.{name}": labels[name] for name in _TOKENIZING}
        if stage == "revise":
            named["reviser.prompts"] = Prompts(config.reviser.prompts).digest
        named["the program"] = [CODE[stage], schema.SCHEMA_VERSION]
        found[stage] = {name: short(digest(value)) for name, value in named.items()}
    return found


def of_plan(settings: SourceSettings) -> dict[str, str]:
    """Likewise of what is read. Where files lie is no part of it, and what they hold is another: see `plan.py`."""
    named = {**settings.data_settings(), "limit": settings.limit}
    left_out = ("input", "decontaminate", "enters_at")
    return {f"source.{name}": short(digest(value)) for name, value in named.items() if name not in left_out}


def short(sha256: str) -> str:
    return sha256[:8]
