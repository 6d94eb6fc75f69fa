"""Where rows come from: one adapter a data set, and one way to read them all.

    resolve(name, input)  ->  ResolvedSource     what exactly will be read, pinned and digested   (mixing.py, reading.py)
    records(resolved)     ->  Record ...         every row of it, as a dict or as a reject        (mixing.py, reading.py)
    adapter.parse(dict)   ->  SourceRow          the query, the reference, the rejected reply     (one file an adapter)

This package knows nothing of stages, models or output files. Importing it loads neither datasets nor pyarrow.
"""

from __future__ import annotations

import difflib

from pipeline.errors import ConfigError
from pipeline.sources.adapters import (
    alpaca,
    hh_rlhf,
    jsonl,
    openorca,
    parquet,
    sharegpt,
    shp,
    spa,
    synthetic_gptj,
    ultrafeedback,
)
from pipeline.sources.adapters.jsonl import bind
from pipeline.sources.mixing import parts, records, resolve
from pipeline.sources.resolve import Record, ResolvedSource
from pipeline.sources.row import Adapter, SourceRow

_MODULES = (hh_rlhf, sharegpt, shp, synthetic_gptj, openorca, alpaca, ultrafeedback, spa, jsonl, parquet)
ADAPTERS: dict[str, Adapter] = {module.ADAPTER.name: module.ADAPTER for module in _MODULES}


def get(name: str) -> Adapter:
    """The adapter of that name; a ConfigError names the known ones and the nearest."""
    if name in ADAPTERS:
        return ADAPTERS[name]
    near = difflib.get_close_matches(name, ADAPTERS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"unknown source {name!r}: known are {', '.join(sorted(ADAPTERS))}{hint}")


__all__ = ["ADAPTERS", "Adapter", "Record", "ResolvedSource", "SourceRow", "bind", "get", "parts", "records", "resolve"]
