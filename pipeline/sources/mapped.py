"""A row read under a mapping of fields (`fields.py`): what all adapters but hh-rlhf's share. Texts are kept exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import RowReject
from pipeline.sources.adapters import hh_rlhf
from pipeline.sources.fields import Fields
from pipeline.sources.row import SourceRow
from pipeline.sources.text import shape, snippet
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


def read(raw: Mapping[str, Any], fields: Fields) -> SourceRow:
    """The row's query, reference, rejected reply and given pair; RowReject when it isn't of the mapping's shape."""
    if "transcript" in fields.names:
        return hh_rlhf.parse({"chosen": fields.get(raw, "transcript"), "rejected": fields.get(raw, "rejected")})
    pair = _pair(raw, fields) if fields.gives_pairs else (None, None)
    context, reference = (
        _conversation(raw, fields, pair[1]) if "messages" in fields.names else _prompt(raw, fields, pair[1])
    )
    rejected = _rejected(raw, fields, context)
    if system := _optional(raw, fields, "system"):
        context = [("system", system), *context]
    return SourceRow(query(context), reply(reference), rejected, initial=pair[0], revised=pair[1])


def turns_of(raw: Mapping[str, Any], name: str) -> Turns:
    """A conversation as (role, text) turns, at least one; the roles of other formats become those of chat templates."""
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


def last_reply(turns: Turns) -> int:
    """Where the last assistant turn is."""
    for index in range(len(turns) - 1, -1, -1):
        if turns[index][0] == "assistant":
            return index
    got = ", ".join(snippet(role) for role, _ in turns[-4:])
    raise RowReject("no_final_reply", expected="an assistant turn", got=got[:80])


def text_of(raw: Mapping[str, Any], name: str) -> str:
    """A field that must be text."""
    value = raw.get(name)
    if not isinstance(value, str):
        raise RowReject("wrong_shape", expected=f"text in {name!r}", got=shape(raw))
    return value


def _pair(raw: Mapping[str, Any], fields: Fields) -> tuple[str, str]:
    initial, revised = (_final(raw, fields.names[part]) for part in ("initial", "revised"))
    for part, text in (("initial", initial), ("revision", revised)):
        if not text.strip():
            raise RowReject(f"empty_{part}", expected="an answer in words", got=snippet(text))
    return initial, revised


def _prompt(raw: Mapping[str, Any], fields: Fields, otherwise: str | None) -> tuple[Turns, str]:
    """The query and the reference of a row that keeps them apart."""
    name = fields.names["prompt"]
    turns = turns_of(raw, name) if isinstance(raw.get(name), list) else [("user", text_of(raw, name))]
    if extra := _optional(raw, fields, "input"):
        role, content = turns[-1]
        turns[-1] = (role, f"{content}\n\n{extra}")
    if otherwise is not None and "reference" not in fields.names:
        return turns, otherwise
    return turns, _final(raw, fields.names["reference"])


def _conversation(raw: Mapping[str, Any], fields: Fields, otherwise: str | None) -> tuple[Turns, str]:
    """The query and the reference of a row that has one conversation."""
    turns = turns_of(raw, fields.names["messages"])
    if "reference" in fields.names:
        return turns, _final(raw, fields.names["reference"])
    if otherwise is not None and turns[-1][0] == "user":
        return turns, otherwise
    last = last_reply(turns)
    return turns[:last], turns[last][1]


def _rejected(raw: Mapping[str, Any], fields: Fields, context: Turns) -> str | None:
    """The worse reply, if the row has a usable one to the same query: what is wrong with it costs only itself."""
    name = fields.names.get("rejected")
    if name is None or raw.get(name) is None:
        return None
    try:
        if not isinstance(raw[name], list):
            text = text_of(raw, name)
        else:
            turns = turns_of(raw, name)
            last = last_reply(turns)
            text = turns[last][1] if turns[:last] in ([], context) else ""
    except RowReject:
        return None
    return text if text.strip() else None


def _final(raw: Mapping[str, Any], name: str) -> str:
    """A reply given as text, or as the last assistant turn of a conversation."""
    if not isinstance(raw.get(name), list):
        return text_of(raw, name)
    turns = turns_of(raw, name)
    return turns[last_reply(turns)][1]


def _optional(raw: Mapping[str, Any], fields: Fields, part: str) -> str | None:
    """Text that a row may lack; None when it is blank."""
    name = fields.names.get(part)
    if name is None or raw.get(name) is None:
        return None
    text = text_of(raw, name)
    return text if text.strip() else None
