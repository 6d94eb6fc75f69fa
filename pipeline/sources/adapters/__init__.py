"""One adapter per data set: from a raw record to a query with its reference.

A docstring says of which revision its format is described; a run reads the newest unless `source.revision` names another.
"""

from pipeline.errors import ConfigError
from pipeline.sources.adapters import (
    aligner,
    alpaca,
    clair,
    demo,
    helpsteer3_edit,
    hh_rlhf,
    jsonl,
    openorca,
    sharegpt,
    shp,
    spa,
    synthetic_gptj,
    ultrafeedback,
)
from pipeline.sources.row import Adapter
from pipeline.text import did_you_mean

_PREFERENCES = (hh_rlhf, sharegpt, shp, synthetic_gptj, openorca, alpaca, ultrafeedback)
_PAIRS = (spa, helpsteer3_edit, aligner, clair, demo)
_ALL: list[Adapter] = [*(module.ADAPTER for module in (*_PREFERENCES, *_PAIRS, jsonl)), jsonl.PARQUET]
ADAPTERS = {adapter.name: adapter for adapter in _ALL}


def get(name: str) -> Adapter:
    """The adapter of that name; a ConfigError lists the known ones and suggests the nearest."""
    if name in ADAPTERS:
        return ADAPTERS[name]
    known = sorted(ADAPTERS)
    raise ConfigError(f"unknown source {name!r}: known are {', '.join(known)}{did_you_mean(name, known)}")
