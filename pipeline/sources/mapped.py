"""A row read under a mapping of fields (`fields.py`): what most adapters share. Texts are kept exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import RowReject
from pipeline.sources.adapters import hh_rlhf
from pipeline.sources.fields import Fields
from pipeline.sources.row import SourceRow, Turns, query, reply
from pipeline.text import shape, snippet

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
    """The row's query, reference, rejected reply and pair; RowReject when it isn't of the mapping's shape."""
    if "transcript" in fields.names:
        return hh_rlhf.parse({"chosen": fields.get(raw, "transcript"), "rejected": fields.get(raw, "rejected")})
    initial, revised = _pair(raw, fields) if fields.gives_pairs else (None, None)
    context, reference = (_conversation if "messages" in fields.names else _prompt)(raw, fields, revised)
    rejected = _rejected(raw, fields, context)
    if system := _optional(raw, fields, "system"):
        context = [("system", system), *context]
    return SourceRow(query(context), reply(reference), rejected, initial=initial, revised=revised)


def turns_of(raw: Mapping[str, Any], name: str) -> Turns:
    """A conversation as (role, text) turns, at least one; the roles of other formats become those of chat templates."""
    value = raw.get(name)
    if not isinstance(value, list) or not value:
        raise RowReject("wrong_shape", expected=f"a conversation in {name!r}", got=shape(raw))
    turns = []
    for index, turn in enumerate(value):
        fields = turn if isinstance(turn, dict) else {}
        role, content = fields.get("role", fields.get("from")), fields.get("content", fields.get("value"))
        if not isinstance(role, str) or not isinstance(content, str):
            expected = f"turns with text in role/content or from/value in {name!r}"
            raise RowReject("wrong_shape", expected=expected, got=f"turn {index}: {shape(turn)}")
        turns.append((_ROLES.get(role.lower(), role.lower()), content))
    return turns


def split_at_reply(turns: Turns) -> tuple[Turns, str]:
    """The turns before the last assistant turn, and its text."""
    for index in reversed(range(len(turns))):
        role, text = turns[index]
        if role == "assistant":
            return turns[:index], text
    got = ", ".join(snippet(role) for role, _ in turns[-4:])
    raise RowReject("no_final_reply", expected="an assistant turn", got=got[:80])


def text_of(raw: Mapping[str, Any], name: str) -> str:
    """A field that must be text."""
    value = raw.get(name)
    if not isinstance(value, str):
        raise RowReject("wrong_shape", expected=f"text in {name!r}", got=shape(raw))
    return value


def _pair(raw: Mapping[str, Any], fields: Fields) -> tuple[str, str]:
    initial, revised = (_reply(raw, fields.names[part]) for part in ("initial", "revised"))
    for part, text in (("initial", initial), ("revision", revised)):
        if not text.strip():
            raise RowReject(f"empty_{part}", expected="an answer in words", got=snippet(text))
    return initial, revised


def _prompt(raw: Mapping[str, Any], fields: Fields, revised: str | None) -> tuple[Turns, str]:
    """The query and the reference of a row that keeps them apart."""
    name = fields.names["prompt"]
    turns = turns_of(raw, name) if isinstance(raw.get(name), list) else [("user", text_of(raw, name))]
    if extra := _optional(raw, fields, "input"):
        role, content = turns[-1]
        turns[-1] = (role, f"{content}\n\n{extra}")
    if revised is not None and "reference" not in fields.names:
        return turns, revised
    return turns, _reply(raw, fields.names["reference"])


def _conversation(raw: Mapping[str, Any], fields: Fields, revised: str | None) -> tuple[Turns, str]:
    """The query and the reference of a row that has one conversation."""
    turns = turns_of(raw, fields.names["messages"])
    if "reference" in fields.names:
        return turns, _reply(raw, fields.names["reference"])
    if revised is not None and turns[-1][0] == "user":
        return turns, revised
    return split_at_reply(turns)


def _rejected(raw: Mapping[str, Any], fields: Fields, context: Turns) -> str | None:
    """The worse reply, or None: one that is unusable, or replies to another query, doesn't cost the row."""
    name = fields.names.get("rejected")
    if name is None:
        return None
    try:
        if isinstance(raw.get(name), list):
            before, text = split_at_reply(turns_of(raw, name))
            if before not in ([], context):
                return None
        else:
            text = text_of(raw, name)
    except RowReject:
        return None
    return text if text.strip() else None


def _reply(raw: Mapping[str, Any], name: str) -> str:
    """A reply as text, or as the last assistant turn of a conversation."""
    if isinstance(raw.get(name), list):
        return split_at_reply(turns_of(raw, name))[1]
    return text_of(raw, name)


def _optional(raw: Mapping[str, Any], fields: Fields, part: str) -> str | None:
    """Text that a row may lack; None when it is blank."""
    name = fields.names.get(part)
    if name is None or raw.get(name) is None:
        return None
    text = text_of(raw, name)
    return text if text.strip() else None
