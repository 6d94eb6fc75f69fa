"""Where rows come from: one adapter a data set, and one way to read them all.

    resolve(name, input)  ->  ResolvedSource     what exactly will be read, pinned and digested   (reading.py)
    records(resolved)     ->  Record ...         every row of it, as a dict or as a reject        (reading.py)
    adapter.parse(dict)   ->  SourceRow          the query, the reference, the rejected reply     (one file an adapter)

This package knows nothing of stages, models or output files. Importing it loads neither datasets nor pyarrow.
"""

from __future__ import annotations

import difflib

from pipeline.errors import ConfigError
from pipeline.sources import hh_rlhf, jsonl
from pipeline.sources.jsonl import bind
from pipeline.sources.reading import Record, ResolvedSource, records, resolve
from pipeline.sources.row import Adapter, SourceRow

ADAPTERS: dict[str, Adapter] = {adapter.name: adapter for adapter in (hh_rlhf.ADAPTER, jsonl.ADAPTER)}


def get(name: str) -> Adapter:
    """The adapter of that name; a ConfigError names the known ones and the nearest."""
    if name in ADAPTERS:
        return ADAPTERS[name]
    near = difflib.get_close_matches(name, ADAPTERS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"unknown source {name!r}: known are {', '.join(sorted(ADAPTERS))}{hint}")


__all__ = ["ADAPTERS", "Adapter", "Record", "ResolvedSource", "SourceRow", "bind", "get", "records", "resolve"]
