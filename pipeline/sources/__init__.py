"""Where rows come from: one adapter per data set, and one way to read them all.

    resolve_source(...)   ->  ResolvedSource     what exactly will be read, pinned and digested   (mixing.py, resolve.py)
    records(resolved)     ->  Record ...         every row of it, as a dict or as a reject        (mixing.py, resolve.py)
    adapter.parse(dict)   ->  SourceRow          the query, the reference, the rejected reply     (one file per adapter)

This package knows nothing of stages, models or output files. Importing it loads neither datasets nor pyarrow.
"""

from pipeline.sources.adapters import ADAPTERS, get
from pipeline.sources.adapters.jsonl import bind
from pipeline.sources.mixing import all_bad, open_adapters, parts, records, resolve_source
from pipeline.sources.resolve import Record, ResolvedSource
from pipeline.sources.row import Adapter, SourceRow

__all__ = [
    "ADAPTERS",
    "Adapter",
    "Record",
    "ResolvedSource",
    "SourceRow",
    "all_bad",
    "bind",
    "get",
    "open_adapters",
    "parts",
    "records",
    "resolve_source",
]
