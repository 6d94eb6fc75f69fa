"""What an export format is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

Messages = Sequence[dict[str, str]]
Render = Callable[[Messages], str]


@dataclass(frozen=True, slots=True)
class Variant:
    """One layout of a format.

    convert: published pairs, with the format's `columns`, to the rows to write. Its second argument renders a query as
    the data set's own tokenizer did, up to the first character of the answer; only with `renders` may it be called.
    """

    convert: Callable[[pa.Table, Render], pa.Table]
    renders: bool = False


@dataclass(frozen=True, slots=True)
class Format:
    """A format that `figa export` writes.

    file: data.json, one array with a row a line, or a .parquet file. columns: the published ones it reads. contract:
    Markdown for the README of the output: columns, loss, and what a trainer must not do; `{file}` and the data set's label
    settings are filled in. unfit: why the consumer would not take this pair, or None; such pairs are listed in
    skipped.jsonl. companions: further files by name, as JSON values. bare: queries stay without the system prompt that the
    policy was asked with, and the labels made with.
    """

    name: str
    file: str
    columns: tuple[str, ...]
    variants: Mapping[str, Variant]
    contract: str
    unfit: Callable[[dict[str, Any]], str | None] | None = None
    companions: Mapping[str, Any] | None = None
    bare: bool = False
