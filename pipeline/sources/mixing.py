"""One source or several in one run: `resolve` pins them, `records` interleaves their rows.

Each row of a mix comes from a source drawn by its weight, from those that still have rows: sampling without replacement,
each source in its own order. The draws depend on the seed alone, and nothing behind a row on how many follow.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator

from pipeline.errors import ConfigError, InputError
from pipeline.sources import resolve as reading
from pipeline.sources.resolve import Record, ResolvedSource, Warn
from pipeline.sources.rows import Damaged


def resolve(
    name: str,
    input: str | None = None,
    *,
    split: str | None = None,
    revision: str | None = None,
    require_full: bool = False,
    mix: tuple[float, ...] | None = None,
    seed: int = 0,
    warn: Warn,
) -> ResolvedSource:
    """Find and pin what `name` means: one adapter, or several with commas, and then with as many inputs and weights.

    UsageError says in one line what doesn't fit or can't be found, and what to do.
    """
    names = [part.strip() for part in name.split(",")]
    if len(names) == 1:
        if mix is not None:
            raise ConfigError("source.mix is for several sources, such as --source hh-rlhf,openorca; leave it out")
        return reading.resolve(names[0], input, split=split, revision=revision, require_full=require_full, warn=warn)
    if revision is not None:
        raise ConfigError(
            "source.revision is for one source; of several, give each its own: --input owner/name@revision"
        )
    inputs = [""] * len(names) if input is None else [part.strip() for part in input.split(",")]
    for what, given in (("--input", inputs), ("source.mix", mix or names)):
        if len(given) != len(names):
            raise ConfigError(
                f"{what} has {len(given)} parts for {len(names)} sources ({', '.join(names)}); give one each, with commas"
            )
    found = tuple(
        reading.resolve(part, where or None, split=split, revision=None, require_full=require_full, warn=warn)
        for part, where in zip(names, inputs, strict=True)
    )
    return _mixed(found, mix or (1.0,) * len(names), seed)


def parts(source: ResolvedSource) -> dict[str, ResolvedSource]:
    """The sources of a run, one or several, by the name that their records carry."""
    times: Counter[str] = Counter()
    named = {}
    for part in source.parts or (source,):
        times[part.adapter] += 1
        number = times[part.adapter]
        named[part.adapter if number == 1 else f"{part.adapter}-{number}"] = part
    return named


def records(source: ResolvedSource, *, warn: Warn = lambda message: None) -> Iterator[Record]:
    """Every row of every source, each once, in an order that the source and its seed determine."""
    streams = [reading.records(part, label, warn) for label, part in parts(source).items()]
    count = 0
    try:
        for record in _interleave(streams, source.weights, source.seed) if source.parts else streams[0]:
            count += 1
            yield record
    except Damaged as error:
        rest = f", or take only what comes before with --limit {count}" if count else ""
        raise InputError(f"{error}. Get the file again{rest}") from error


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


def _mixed(found: tuple[ResolvedSource, ...], weights: tuple[float, ...], seed: int) -> ResolvedSource:
    def joined(field: str) -> str:
        return ", ".join(dict.fromkeys(str(getattr(part, field)) for part in found))

    determined = json.dumps(["mix", [part.digest for part in found], weights, seed])
    return ResolvedSource(
        adapter=",".join(part.adapter for part in found),
        location=joined("location"),
        resolved="mix",
        revision=None,
        split=joined("split"),
        licence=joined("licence"),
        digest=hashlib.sha256(determined.encode()).hexdigest(),
        parts=found,
        weights=weights,
        seed=seed,
    )
