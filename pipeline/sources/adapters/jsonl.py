"""Anyone's JSON Lines, JSON, CSV, TSV or Parquet, under a mapping of fields that is set or guessed (`fields.py`).

    {"question": "2 + 2?", "answer": "4."}

gives, guessed or with `--set source.fields.prompt=question --set source.fields.reference=answer`, the query "2 + 2?"
and the reference "4.". Texts are kept exactly. Parquet's conversations are list<struct<role: string, content: string>>; the
published files of a run of this project are readable too: their pairs enter at the filter stage.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from pipeline.errors import ConfigError, RowReject
from pipeline.sources.fields import SHAPES, Fields, complete, describe, from_settings, guess, read
from pipeline.sources.row import Adapter, SourceRow
from pipeline.sources.turns import missing
from pipeline.text import snippet

_LABEL = "label"


def parse(raw: dict[str, Any]) -> SourceRow:
    """The row under its own guess; a run fixes with `bind` which guesses there may be."""
    return read(raw, complete(raw, guess(raw)))


def bind(adapter: Adapter, fields: Mapping[str, str | None], rows: Iterable[object]) -> tuple[Adapter, str | None]:
    """The adapter for a whole run, and the line to print about its fields, if any.

    The mapping is that of the settings, else those of `rows` (all are read) that yield a query under their own guess: each
    row of the run is read by the first whose fields it has, the most frequent first.
    """
    if adapter.reader is not parse:
        if any(fields.values()):
            raise ConfigError(f"source.fields is for jsonl and parquet; {adapter.name!r} knows its own fields, omit it")
        return adapter, None
    if mapping := from_settings(fields):
        return _bound(adapter, mapping, partial(read, fields=mapping)), f"fields given: {describe(mapping)}"
    votes: Counter[str] = Counter()
    # By description: the mapping, and the same with all fields that its rows have besides.
    guesses: dict[str, tuple[Fields, Fields]] = {}
    without: set[str] = set()
    conversations: set[str] = set()
    for raw in (raw for raw in rows if isinstance(raw, dict)):
        with suppress(RowReject):
            mapping = guess(raw)
            whole = complete(raw, mapping)
            if _LABEL not in whole and not missing(raw.get(_LABEL)):
                without.add(_LABEL)  # in some rows it holds a class or a rating: it isn't KTO's
            row = read(raw, {part: name for part, name in whole.items() if part != _LABEL})
            conversations |= _goes_before(row, raw, whole)
            votes[name := describe(mapping)] += 1
            guesses[name] = mapping, {**(guesses[name][1] if name in guesses else {}), **whole}
    if not votes:
        return adapter, None
    bound, message = _by_votes(adapter, votes, guesses, without)
    return bound, "; ".join([message, *sorted(conversations)])


def _goes_before(row: SourceRow, raw: Mapping[str, Any], fields: Fields) -> set[str]:
    """What to print when a whole conversation was read in place of the prompt beside it."""
    prompt, spoken = raw.get(fields.get("prompt", "")), [m["content"] for m in row.messages if m["role"] != "system"]
    if not isinstance(prompt, str) or "history" in fields or (len(spoken) == 1 and spoken[0].startswith(prompt)):
        return set()
    name = fields.get("reference", fields.get("revised"))
    return {f"the whole conversation in {snippet(name)} goes before {snippet(fields['prompt'])}"}


def _by_votes(
    adapter: Adapter, votes: Counter[str], guesses: Mapping[str, tuple[Fields, Fields]], without: Collection[str]
) -> tuple[Adapter, str]:
    """The adapter that reads by the guesses, the most frequent first, and what to print of them."""
    ranked = [guesses[name] for name, _ in votes.most_common()]
    first = ranked[0][0]
    # All rows of a run enter at the same stage.
    ranked = [(fields, whole) for fields, whole in ranked if ("revised" in fields) == ("revised" in first)]
    reader = partial(_read_any, mappings=[fields for fields, _ in ranked], without=frozenset(without))
    texts = [describe({part: whole[part] for part in whole if part not in without}) for _, whole in ranked]
    most = max(votes.values())
    share = "" if most == votes.total() else f" (of {most} of the first {votes.total()} good rows)"
    others = f"; of others: {' | '.join(texts[1:4])}" if texts[1:] else ""
    pairs = sum(votes[name] for name, (fields, _) in guesses.items() if "revised" in fields)
    if pairs and "revised" not in first:
        others += f"; {pairs} with a pair of their own, which isn't used: keep such rows in a file of their own"
    return _bound(adapter, first, reader), f"fields guessed: {texts[0]}{share}{others}"


def _read_any(raw: dict[str, Any], mappings: Sequence[Fields], without: Collection[str]) -> SourceRow:
    """The row by the first of the mappings whose fields it has; a pair also by its reference, which the others may lack."""
    fits = (fields for fields in mappings if not any(missing(raw.get(name)) for name in fields.values()))
    fields = next(fits, mappings[0])
    if "revised" in fields and "reference" not in fields:
        with suppress(RowReject):
            own = guess(raw)
            fields = own if own.items() > fields.items() else fields
    return read(raw, complete(raw, fields, without))


def _bound(adapter: Adapter, mapping: Fields, reader: Any) -> Adapter:
    expected = f"an object with {describe(mapping)}"
    return replace(adapter, reader=reader, expected=expected, gives_pairs="revised" in mapping)


ADAPTER = Adapter("jsonl", parse, SHAPES, version=3)
PARQUET = replace(ADAPTER, name="parquet", expected=SHAPES.replace("an object with", "a row with", 1))
