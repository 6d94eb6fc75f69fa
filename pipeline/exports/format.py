"""What an export format is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.schema import MESSAGES

Messages = Sequence[dict[str, str]]
Render = Callable[[Messages], str]
# From published pairs, with the format's `columns`, to the rows to write. The second argument renders a query as the data
# set's own tokenizer did, up to the first character of the response.
Convert = Callable[[pa.Table, Render], pa.Table]


@dataclass(frozen=True, slots=True)
class Format:
    """A format that `figa export` writes.

    file: data.json, one array with one line per row, or a .parquet file. columns: the published ones that it reads.
    variants: layouts by name, the default first; rendered: those that call the renderer, and so need the tokenizer.
    contract: Markdown for the README of the output: columns, loss, and what a trainer must not do; `{file}` and the data
    set's label settings are filled in. unfit: why the consumer would not accept a pair, or None; such pairs are listed in
    skipped.jsonl. companions: further files by name, as JSON values. bare: queries stay without the system prompt that the
    policy and the labels were given.
    """

    name: str
    file: str
    columns: tuple[str, ...]
    variants: Mapping[str, Convert]
    contract: str
    rendered: tuple[str, ...] = ()
    unfit: Callable[[dict[str, Any]], str | None] | None = None
    companions: Mapping[str, Any] | None = None
    bare: bool = False


def assistant_turns(texts: pa.ChunkedArray) -> pa.Array:
    """Each text as a conversation of one assistant turn."""
    return pa.array([[{"role": "assistant", "content": text}] for text in texts.to_pylist()], MESSAGES)


def rendered_prompts(pairs: pa.Table, render: Render) -> pa.Array:
    return pa.array([render(messages) for messages in pairs["messages"].to_pylist()], pa.string())
