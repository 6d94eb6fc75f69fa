"""What an adapter is, and what it makes of a raw row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.errors import RowReject
from pipeline.text import encodable, replace_surrogates, shape

Message = dict[str, str]


class SourceRow(NamedTuple):
    """One query with its reference reply.

    `messages` are `{"role", "content"}` and end with a user turn; no content is blank, nor is `reference`.
    `rejected` is the source's worse reply to the *same* query, or None. `initial` and `revised` are a pair that the source
    gives, neither blank, or both None. All text can be encoded as UTF-8; `replaced_surrogates` counts the characters that
    had to be replaced for that.
    """

    messages: list[Message]
    reference: str
    rejected: str | None = None
    replaced_surrogates: int = 0
    initial: str | None = None
    revised: str | None = None


@dataclass(frozen=True, slots=True)
class Adapter:
    """How one data set's raw rows become `SourceRow`s, and what is known of the data set.

    `reader` is the adapter's own pure function; call `parse`. Raise `version` when `reader` gives another result for
    the same row: it is part of the source's digest. `hub_file` is the file of the data set that makes up its split, where it
    holds others too. `gives_pairs`: every row has `initial` and `revised`, so it can enter at the filter stage.
    """

    name: str
    reader: Callable[[dict[str, Any]], SourceRow]
    expected: str
    hub_id: str | None = None
    hub_split: str = "train"
    hub_file: str | None = None
    licence: str = "unknown"
    page: str = ""
    version: int = 1
    gives_pairs: bool = False

    def parse(self, raw: Any) -> SourceRow:
        """The row, with encodable text; RowReject (and nothing else) for whatever isn't one."""
        if not isinstance(raw, dict):
            raise RowReject("not_an_object", expected=self.expected, got=shape(raw))
        return _encodable(self.reader(raw))


def _encodable(row: SourceRow) -> SourceRow:
    """One lone surrogate makes pyarrow, SQLite, hashing and tokenizers raise, so none may pass this point."""
    contents = [message["content"] for message in row.messages]
    said = (*contents, row.reference, row.rejected or "", row.initial or "", row.revised or "")
    if encodable("".join(said)):
        return row
    names = ("reference", "rejected", "initial", "revised")
    texts = {name: text for name in names if (text := getattr(row, name)) is not None}
    count = 0

    def replaced(text: str) -> str:
        nonlocal count
        text, more = replace_surrogates(text)
        count += more
        return text

    messages = [
        message | {"content": replaced(content)} for message, content in zip(row.messages, contents, strict=True)
    ]
    texts = {name: replaced(text) for name, text in texts.items()}
    return row._replace(messages=messages, **texts, replaced_surrogates=count)
