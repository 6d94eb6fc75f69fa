"""Anyone's JSON Lines, JSON, CSV, TSV or Parquet, under a mapping of fields that is set or guessed (`fields.py`).

    {"question": "2 + 2?", "answer": "4."}

gives, guessed or with `--set source.fields.prompt=question --set source.fields.reference=answer`, the query "2 + 2?"
and the reference "4.". Texts are kept exactly. Parquet's conversations are list<struct<role: string, content: string>>; the
published files of a run of this project are readable too: their pairs enter at the filter stage.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from pipeline.errors import ConfigError, RowReject
from pipeline.sources.fields import SHAPES, Fields, describe, from_settings, guess, read
from pipeline.sources.row import Adapter, SourceRow


def parse(raw: dict[str, Any]) -> SourceRow:
    """The row under its own guess; a run fixes one guess for all rows with `bind`."""
    return read(raw, guess(raw))


def bind(adapter: Adapter, fields: Mapping[str, str | None], rows: Iterable[object]) -> tuple[Adapter, str | None]:
    """The adapter for a whole run, and the line to print about its fields, if any.

    The mapping is that of the settings, else that of most `rows` (all are read) that yield a query under their own guess.
    """
    if adapter.reader is not parse:
        if any(fields.values()):
            raise ConfigError(f"source.fields is for jsonl and parquet; {adapter.name!r} knows its own fields, omit it")
        return adapter, None
    if mapping := from_settings(fields):
        return _bound(adapter, mapping), f"fields given: {describe(mapping)}"
    mappings: dict[str, Fields] = {}
    votes: Counter[str] = Counter()
    for raw in rows:
        if isinstance(raw, dict):
            with suppress(RowReject):
                mapping = guess(raw)
                read(raw, mapping)
                votes[describe(mapping)] += 1
                mappings[describe(mapping)] = mapping
    if not votes:
        return adapter, None
    [(name, most)] = votes.most_common(1)
    share = "" if most == votes.total() else f" (of {most} of the first {votes.total()} good rows)"
    return _bound(adapter, mappings[name]), f"fields guessed: {name}{share}"


def _bound(adapter: Adapter, mapping: Fields) -> Adapter:
    expected = f"an object with {describe(mapping)}"
    return replace(adapter, reader=partial(read, fields=mapping), expected=expected, gives_pairs="revised" in mapping)


ADAPTER = Adapter("jsonl", parse, SHAPES)
PARQUET = replace(ADAPTER, name="parquet", expected=SHAPES.replace("an object with", "a row with", 1))
