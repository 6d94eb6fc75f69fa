"""What determines the plan and the whole run, by name; what determines each stage is in `stages/table.py`."""

from __future__ import annotations

import pyarrow as pa

from pipeline import __version__, rewards, schema
from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import CurationConfig
from pipeline.labels.model_files import folder_digest
from pipeline.models import factory
from pipeline.prompts import Prompts
from pipeline.run.record import data_settings
from pipeline.sources import checks
from pipeline.stages.table import BY_NAME, STAGES, Inputs

# Raise when the rows that are planned from the same source change.
PLAN_VERSION = 2
SOURCE_CONTENT = "the source's content"


def plan_inputs(config: CurationConfig, source_digest: str) -> Inputs:
    """All that determines the planned rows but the limit. Where files lie does not: what they hold is in two digests."""
    settings = config.source.data_settings()
    samples = config.policy.samples if config.needs_generation else 1
    return {
        "the program": PLAN_VERSION,
        SOURCE_CONTENT: source_digest,
        "source": {name: value for name, value in settings.items() if name not in ("input", "decontaminate")},
        "curation checks": checks.identity(config.source),
        "columns": planned_columns(config).names,
        **({"policy.samples": samples} if samples > 1 else {}),
    }


def planned_columns(config: CurationConfig) -> pa.Schema:
    """The columns of the planned rows: the source's, and for pre-made pairs those of the stages that are left out."""
    left_out = [stage for stage in schema.STAGES[1:-2] if stage not in config.stages]
    return pa.schema([*schema.SOURCE, *(field for stage in left_out for field in BY_NAME[stage].adds)])


def run_inputs(config: CurationConfig, source_digest: str) -> Inputs:
    """All that determines what a run publishes: the content of source, prompts and models, the limit, and the settings.

    A tokenizer or reward model on the Hub is known by its name alone: listing its files takes longer than a run with nothing
    to do.
    """
    settings = data_settings(config)
    del settings["reviser"]["prompts"], settings["reward"]["prompts"]
    # What these files hold is in the digests of the source and of its checks.
    del settings["source"]["input"], settings["source"]["decontaminate"]
    files: list[object] = [folder_digest(config.labels.tokenizer, weights=False)]
    files += [rewards.identify_models(config.reward)] if config.needs_rewards else []
    return {
        SOURCE_CONTENT: source_digest,
        "curation checks": checks.identity(config.source),
        "source.limit": config.source.limit,
        "settings": settings,
        "the reviser's prompts": Prompts(config.reviser.prompts).digest,
        "the models": [factory.identity(ModelSpec.parse(m)) for m in (config.policy.model, config.reviser.model)],
        "the files of tokenizer and reward model": files,
        "the program": [__version__, schema.SCHEMA_VERSION, {stage.name: stage.version for stage in STAGES}],
    }
