"""One adapter per data set: from a raw record to a query with its reference.

A docstring says of which revision its format is described; a run reads the newest unless `source.revision` names another.
"""

from pipeline.errors import ConfigError
from pipeline.sources.adapters import (
    alpaca,
    demo,
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

_MODULES = (hh_rlhf, sharegpt, shp, synthetic_gptj, openorca, alpaca, ultrafeedback, spa, demo, jsonl)
_ALL: list[Adapter] = [*(module.ADAPTER for module in _MODULES), jsonl.PARQUET]
ADAPTERS = {adapter.name: adapter for adapter in _ALL}


def get(name: str) -> Adapter:
    """The adapter of that name; a ConfigError lists the known ones and suggests the nearest."""
    if name in ADAPTERS:
        return ADAPTERS[name]
    known = sorted(ADAPTERS)
    raise ConfigError(f"unknown source {name!r}: known are {', '.join(known)}{did_you_mean(name, known)}")
