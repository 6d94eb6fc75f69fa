"""One source or several in one run: `resolve_source` pins them, `records` interleaves their rows.

Each row of a mix comes from a source drawn by its weight, from those that still have rows: sampling without replacement,
each source in its own order. The draws depend on the seed alone, so a longer mix begins with the same rows.
"""

import hashlib
import itertools
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pipeline.config.settings import SourceSettings
from pipeline.errors import ConfigError, InputError, RowReject
from pipeline.sources.adapters import get
from pipeline.sources.adapters.jsonl import bind
from pipeline.sources.files import Warn
from pipeline.sources.resolve import Record, ResolvedSource, records_of, resolve_one
from pipeline.sources.row import Adapter
from pipeline.sources.rows import Damaged
from pipeline.sources.turns import leave_out
from pipeline.text import did_you_mean, snippet

_GUESS_ROWS = 1000  # from which a generic source's fields are guessed


def resolve_source(settings: SourceSettings, warn: Warn) -> ResolvedSource:
    """Find and pin what a run reads: one source, or several with commas and as many inputs and weights, or ConfigError."""
    names = [part.strip() for part in settings.name.split(",")]
    if len(names) == 1:
        if settings.mix is not None:
            raise ConfigError("source.mix is for several sources, such as --source hh-rlhf,openorca; leave it out")
        return resolve_one(settings, warn)
    if settings.revision is not None:
        hint = "of several, give each its own: --input owner/name@revision"
        raise ConfigError(f"source.revision is for one source; {hint}")
    inputs = [""] * len(names) if settings.input is None else [part.strip() for part in settings.input.split(",")]
    weights = settings.mix or (1.0,) * len(names)
    for what, got in (("--input", len(inputs)), ("source.mix", len(weights))):
        if got != len(names):
            expected = f"{len(names)} sources ({', '.join(names)})"
            raise ConfigError(f"{what} has {got} parts for {expected}; give one each, with commas")
    values = [{"name": name, "input": input or None} for name, input in zip(names, inputs, strict=True)]
    resolved = tuple(resolve_one(settings.model_copy(update=update), warn) for update in values)
    return _mixed(resolved, weights, settings.seed)


def parts(source: ResolvedSource) -> dict[str, ResolvedSource]:
    """The sources of a run, one or several, by the name that their records carry."""
    named: dict[str, ResolvedSource] = {}
    for part in source.parts or (source,):
        number = 1 + sum(other.adapter == part.adapter for other in named.values())
        named[part.adapter if number == 1 else f"{part.adapter}-{number}"] = part
    return named


def records(source: ResolvedSource, *, warn: Warn = lambda message: None) -> Iterator[Record]:
    """Every row of every source, each once, in an order that the source and its seed determine."""
    streams = [records_of(part, label, warn) for label, part in parts(source).items()]
    count = 0
    try:
        mixed = _interleave(streams, source.weights, source.seed) if source.parts else streams[0]
        for record in mixed:
            count += 1
            yield record
    except Damaged as error:
        rest = f", or take only what comes before with --limit {count}" if count else ""
        raise InputError(f"{error}. Get the file again{rest}") from error


def open_adapters(settings: SourceSettings, source: ResolvedSource, warn: Warn) -> dict[str, Adapter]:
    """Each source's adapter by the name of its records; generic ones bound to `source.fields` (else ConfigError) or a guess.

    ConfigError for a column of `source.keep` that none of the first rows has.
    """
    mixed = parts(source)
    generic = [name for name, part in mixed.items() if get(part.adapter).is_generic]
    with_fields = generic or list(mixed)[:1]  # without a generic source, the first one refuses them
    adapters = {}
    columns: dict[str, None] = {}
    for name, part in mixed.items():
        adapter = replace(get(part.adapter), ignore=settings.ignore)
        first: list[dict[str, Any]] = []
        if settings.keep or adapter.is_generic:
            read = itertools.islice(records(part), min(settings.limit or _GUESS_ROWS, _GUESS_ROWS))
            rows = [record.value for record in read if isinstance(record.value, dict)]
            columns |= dict.fromkeys(column for row in rows for column in row)
            first = [leave_out(row, settings.ignore) for row in rows] if settings.ignore else rows
        fields = settings.fields if name in with_fields else None
        adapters[name], message = bind(adapter, fields or {}, first)
        if message:
            warn(message)
    for column in settings.keep:
        if column not in columns:
            hint = did_you_mean(column, columns)
            known = ", ".join(map(snippet, columns))
            raise ConfigError(f"source.keep: no row of the source has {column!r}; its columns are {known}{hint}")
    return adapters


def all_bad(count: int, first: RowReject, adapters: Mapping[str, Adapter]) -> InputError:
    """The error for a source none of whose `count` rows is of the expected shape, with what is wrong with the `first`."""
    evidence = first.evidence
    expected = evidence.get("expected") or " or ".join(adapter.expected for adapter in adapters.values())
    got = f", got {evidence['got']}" if "got" in evidence else ""
    usable = f"none of {count:,} rows is usable" if count > 1 else "its only row is not usable"
    return InputError(f"{evidence.get('where')}: {first.reason}: expected {expected}{got}; {usable}")


def _interleave(streams: list[Iterator[Record]], weights: tuple[float, ...], seed: int) -> Iterator[Record]:
    # random() alone: its sequence is the same in every version of Python, that of choices() need not be.
    draw = random.Random(seed).random  # noqa: S311 - not for secrets
    live = list(zip(streams, weights, strict=True))
    while live:
        at, index = draw() * sum(weight for _, weight in live), 0
        while index < len(live) - 1 and at >= live[index][1]:
            at -= live[index][1]
            index += 1
        record = next(live[index][0], None)
        if record is None:
            del live[index]
        else:
            yield record


def _mixed(resolved: tuple[ResolvedSource, ...], weights: tuple[float, ...], seed: int) -> ResolvedSource:
    def joined(field: str) -> str:
        return ", ".join(dict.fromkeys(str(getattr(part, field)) for part in resolved))

    adapter = ",".join(part.adapter for part in resolved)
    location, split, licence = joined("location"), joined("split"), joined("licence")
    determined = json.dumps(["mix", [part.digest for part in resolved], weights, seed])
    digest = hashlib.sha256(determined.encode()).hexdigest()
    return ResolvedSource(adapter, location, "mix", None, split, licence, digest, (), resolved, weights, seed)
