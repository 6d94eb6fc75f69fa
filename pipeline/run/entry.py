"""Where rows enter a run: at its first stage, or at the filter stage when they bring an initial and a revised answer.

    source ──► sample ──► score ──► select ──► revise ──► filter ──► label      rows with a query and a reference
    source ──► (score) ─────────────────────────────────► filter ──► label      rows that bring both answers

All rows of a run enter at the same place. What a run on brought answers doesn't need is not loaded, fetched or checked: policy,
reviser, and the reward model unless `filter.min_reward_gain` is set or `labels.signal` is reward_weighted. Without it the
published rewards are null. `policy_model` and `reviser_model` are "given", and the diagnosis, which nobody made, is `other`.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from pipeline import schema
from pipeline.config.settings import CurationConfig
from pipeline.errors import ConfigError
from pipeline.sources import Adapter


def decided(config: CurationConfig, adapters: Mapping[str, Adapter]) -> CurationConfig:
    """The configuration with `source.enters_at` decided by what the rows of its sources have.

    Raises ConfigError when rows that must enter at the filter stage don't all bring the answers for it.
    """
    wanted = config.source.enters_at
    lacking = [name for name, adapter in adapters.items() if not adapter.gives_pairs]
    if lacking and (wanted == "filter" or (wanted == "auto" and len(lacking) < len(adapters))):
        raise ConfigError(
            f"source.enters_at: rows of {', '.join(lacking)} bring no initial and revised answers to enter at the filter "
            "stage with; run the sources apart, or set source.enters_at=sample to have all answers made"
        )
    entry = "sample" if lacking or wanted == "sample" else "filter"
    return config.model_copy(update={"source": config.source.model_copy(update={"enters_at": entry})})


def asks_models(config: CurationConfig) -> bool:
    """Whether answers are made, by a policy and a reviser."""
    return config.source.enters_at != "filter"


def scores(config: CurationConfig) -> bool:
    """Whether the reward model is needed."""
    asked = config.filter.min_reward_gain is not None or config.labels.signal == "reward_weighted"
    return asks_models(config) or asked


def stages(config: CurationConfig) -> tuple[str, ...]:
    """The stages of a run, the source first."""
    if asks_models(config):
        return schema.STAGES
    return ("source", "score", "filter", "label") if scores(config) else ("source", "filter", "label")


def columns(config: CurationConfig) -> pa.Schema:
    """The columns of the planned source: its own, and of brought answers those of the stages that are left out."""
    left_out = () if asks_models(config) else [stage for stage in schema.STAGES[:-2] if stage not in stages(config)]
    return pa.schema([*schema.SOURCE, *(field for stage in left_out for field in schema.ADDED[stage])])
