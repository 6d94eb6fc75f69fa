"""Anyone's JSON Lines, JSON, CSV or TSV, under a mapping of fields that is given or guessed (`fields.py`).

    {"question": "2 + 2?", "answer": "4."}

gives, guessed or with `--set source.fields.prompt=question --set source.fields.reference=answer`, the query "2 + 2?"
and the reference "4.". Texts are kept exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from pipeline.errors import ConfigError, RowReject
from pipeline.sources.fields import SHAPES, Fields, given, guess
from pipeline.sources.mapped import read
from pipeline.sources.row import Adapter, SourceRow


def parse(raw: dict[str, Any]) -> SourceRow:
    """The row under its own guess; a run fixes one guess for all rows with `bind`."""
    return read(raw, guess(raw))


def bind(adapter: Adapter, fields: Mapping[str, str | None], rows: Iterable[object]) -> tuple[Adapter, str | None]:
    """The adapter to use for a whole run, and the line to print about its fields (None: nothing to say).

    For `jsonl` and `parquet` the mapping is the given one, else that of most of the rows which yield a query under their own
    guess; it then holds for every row. All `rows`, parsed records, are read, so give a bounded part of an unknown source.
    """
    if adapter.reader is not parse:
        if any(fields.values()):
            raise ConfigError(
                f"source.fields is for sources jsonl and parquet; {adapter.name!r} knows its own fields, leave it out"
            )
        return adapter, None
    mapping = given(fields)
    if mapping is not None:
        return _bound(adapter, mapping), f"fields given: {mapping}"
    guesses: dict[str, list[Fields]] = {}
    for raw in rows:
        if not isinstance(raw, dict):
            continue
        with suppress(RowReject):
            mapping = guess(raw)
            read(raw, mapping)
            guesses.setdefault(str(mapping), []).append(mapping)
    if not guesses:
        return adapter, None
    most = max(guesses.values(), key=len)
    good = sum(map(len, guesses.values()))
    told = "" if len(most) == good else f" (of {len(most)} of the first {good} good rows)"
    return _bound(adapter, most[0]), f"fields guessed: {most[0]}{told}"


def _bound(adapter: Adapter, mapping: Fields) -> Adapter:
    reader = partial(read, fields=mapping)
    return replace(adapter, reader=reader, expected=f"an object with {mapping}", gives_pairs=mapping.gives_pairs)


ADAPTER = Adapter(name="jsonl", reader=parse, expected=SHAPES)
