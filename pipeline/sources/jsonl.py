"""Anyone's JSON Lines, under a mapping of fields that is given or guessed (`fields.py`). Texts are kept exactly.

    {"question": "2 + 2?", "answer": "4."}

gives, guessed or with `--set source.fields.prompt=question --set source.fields.reference=answer`, the query "2 + 2?"
and the reference "4.".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from pipeline.errors import ConfigError, RowReject
from pipeline.sources import hh_rlhf
from pipeline.sources.fields import SHAPES, Fields, given, guess
from pipeline.sources.row import Adapter, SourceRow
from pipeline.sources.text import shape
from pipeline.sources.turns import Turns, query, reply

_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "developer": "system",
}


def parse(raw: dict[str, Any]) -> SourceRow:
    """The row under its own guess; a run fixes one guess for all rows with `bind`."""
    return read(raw, guess(raw))


def read(raw: dict[str, Any], fields: Fields) -> SourceRow:
    """The row under a given mapping."""
    if "transcript" in fields.names:
        return hh_rlhf.parse({"chosen": fields.get(raw, "transcript"), "rejected": fields.get(raw, "rejected")})
    context, reference = _conversation(raw, fields) if "messages" in fields.names else _prompt(raw, fields)
    if system := _optional(raw, fields, "system"):
        context = [("system", system), *context]
    rejected = None if fields.get(raw, "rejected") is None else _final(raw, fields.names["rejected"])
    return SourceRow(query(context), reply(reference), rejected if rejected and rejected.strip() else None)


def bind(
    adapter: Adapter, fields: Mapping[str, str | None], rows: Iterable[dict[str, Any]]
) -> tuple[Adapter, str | None]:
    """The adapter to use for a whole run, and the line to print about its fields (None: nothing to say).

    For `jsonl` the mapping is the given one, else that of the first row which yields a query under its own guess; it
    then holds for every row. Rows are read until one is good, so give a bounded part of an unknown source.
    """
    mapping = given(fields)
    if adapter.name != ADAPTER.name:
        if mapping is not None:
            raise ConfigError(
                f"source.fields is for source 'jsonl'; {adapter.name!r} knows its own fields, leave it out"
            )
        return adapter, None
    if mapping is not None:
        return _bound(mapping), f"fields given: {mapping}"
    for raw in rows:
        try:
            mapping = guess(raw)
            read(raw, mapping)
        except RowReject:
            continue
        return _bound(mapping), f"fields guessed from the first good row: {mapping}"
    return adapter, None


def _bound(mapping: Fields) -> Adapter:
    return replace(ADAPTER, reader=partial(read, fields=mapping), expected=f"an object with {mapping}")


def _prompt(raw: Mapping[str, Any], fields: Fields) -> tuple[Turns, str]:
    """The query and the reference of a row that keeps them apart."""
    name = fields.names["prompt"]
    turns = _turns(raw, name) if isinstance(raw.get(name), list) else [("user", _text(raw, name))]
    if extra := _optional(raw, fields, "input"):
        role, content = turns[-1]
        turns[-1] = (role, f"{content}\n\n{extra}")
    return turns, _final(raw, fields.names["reference"])


def _conversation(raw: Mapping[str, Any], fields: Fields) -> tuple[Turns, str]:
    """The query and the reference of a row that has one conversation."""
    turns = _turns(raw, fields.names["messages"])
    if "reference" in fields.names:
        return turns, _final(raw, fields.names["reference"])
    last = _last_reply(turns)
    return turns[:last], turns[last][1]


def _final(raw: Mapping[str, Any], name: str) -> str:
    """A reply given as text, or as the last assistant turn of a conversation."""
    if not isinstance(raw.get(name), list):
        return _text(raw, name)
    turns = _turns(raw, name)
    return turns[_last_reply(turns)][1]


def _turns(raw: Mapping[str, Any], name: str) -> Turns:
    value = raw.get(name)
    if not isinstance(value, list) or not value:
        raise RowReject("wrong_shape", expected=f"a conversation in {name!r}", got=shape(raw))
    turns = []
    for index, turn in enumerate(value):
        role = turn.get("role", turn.get("from")) if isinstance(turn, dict) else None
        content = turn.get("content", turn.get("value")) if isinstance(turn, dict) else None
        if not isinstance(role, str) or not isinstance(content, str):
            expected = f"turns with text in role/content or from/value in {name!r}"
            raise RowReject("wrong_shape", expected=expected, got=f"turn {index}: {shape(turn)}")
        turns.append((_ROLES.get(role.lower(), role.lower()), content))
    return turns


def _last_reply(turns: Turns) -> int:
    for index in range(len(turns) - 1, -1, -1):
        if turns[index][0] == "assistant":
            return index
    raise RowReject("no_final_reply", expected="an assistant turn", got=", ".join(role for role, _ in turns[-4:])[:80])


def _text(raw: Mapping[str, Any], name: str) -> str:
    value = raw.get(name)
    if not isinstance(value, str):
        raise RowReject("wrong_shape", expected=f"text in {name!r}", got=shape(raw))
    return value


def _optional(raw: Mapping[str, Any], fields: Fields, part: str) -> str | None:
    """Text that a row may lack; None when it is blank."""
    if fields.get(raw, part) is None:
        return None
    text = _text(raw, fields.names[part])
    return text if text.strip() else None


ADAPTER = Adapter(name="jsonl", reader=parse, expected=SHAPES)
