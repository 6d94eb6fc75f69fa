"""A conversation as (role, text) turns, out of the shapes in which people store one.

    [{"role": "user", "content": "Hi"}, …]        also from/value, text, or parts of type text; names such as prompter, gpt, bot
    [{"input": "Hi", "output": "Hello!"}, …]      a question and its answer in one entry (Capybara), or ["Hi", "Hello!"]
    ["Hi", "Hello!", …]                           the user's turn first, then alternating (LIMA)
    {"role": ["user", …], "content": ["Hi", …]}   a list per field, as Parquet may have it; a single turn is an object too
    '[{"role": "user", "content": "Hi"}, …]'      objects as JSON text, or as Python writes them

Fields that are null don't count, and a system turn without words is none. Calls of tools, images and the like are never left
out unless `source.ignore` names them: RowReject("unsupported_content").
"""

import ast
import json
import math
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from pipeline.errors import RowReject
from pipeline.text import shape, snippet

# (role, text) in the order of a conversation.
Turns = list[tuple[str, str]]
# Fields of conversations, by name.
CONVERSATIONS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat")
_ROLE_NAMES = {
    "system": "system developer",
    "user": "user human prompter person customer client",
    "assistant": "assistant gpt chatgpt bing bard bot model ai chatbot agent llm claude gemini",
    "tool": "tool function observation ipython function_call tool_call function_response tool_response tool_result",
}
_ROLE_OF = {name: role for role, names in _ROLE_NAMES.items() for name in names.split()}
_SPEAKERS = {name: role for name, role in _ROLE_OF.items() if role != "tool"} | {
    **dict.fromkeys(("input", "instruction", "prompt", "question", "query"), "user"),
    **dict.fromkeys(("output", "response", "answer", "completion"), "assistant"),
}
_ROLE_FIELDS, _TEXT_FIELDS = ("role", "from", "speaker", "author"), ("content", "value", "text", "message")
_TOOL_FIELDS = ("tool_calls", "function_call")
_EMPTY = ("", "[]", "{}", "null", "none")
# What `source.ignore` may name, and the columns of a row, or fields of a turn, that hold such content.
_COLUMNS = {"tools": "tools", "images": "image images", "audio": "audio audios", "videos": "video videos"}
_KIND_OF = {name: kind for kind, names in _COLUMNS.items() for name in names.split()} | dict.fromkeys(
    _TOOL_FIELDS, "tools"
)


def missing(value: object) -> bool:
    """Whether a field has no value: null, or the NaN that pandas writes for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def first_of(names: Collection[str], fields: Mapping[str, Any]) -> Any:
    """The first of the fields that has a value, or None."""
    return next((fields[name] for name in names if not missing(fields.get(name))), None)


def is_conversation(value: object, *, in_its_column: bool = False) -> bool:
    """Whether a value is stored as a conversation, perhaps with unsupported content; outside a column for one, with roles."""
    entries = _entries(value)
    if not entries:
        return False
    if not in_its_column and not all(isinstance(entry, dict) and _role(entry) is not None for entry in entries):
        return False
    try:
        return bool(turns_of(value, ""))
    except RowReject as reject:
        return reject.reason == "unsupported_content"


def turns_of(value: object, name: str) -> Turns:
    """The turns of the field `name`, at least one, with the roles of chat templates; unknown roles stay as they are."""
    entries = _entries(value)
    if not entries:
        raise RowReject("wrong_shape", expected=f"a conversation in {name!r}", got=shape({name: value}))
    turns: Turns = []
    for index, entry in enumerate(entries):
        read = _turns(entry, index)
        if not read or isinstance(entry, str) != isinstance(entries[0], str):
            expected = f"turns with text in role/content or from/value in {name!r}"
            raise RowReject("wrong_shape", expected=expected, got=f"turn {index}: {shape(entry)}")
        turns += [(role, text) for role, text in read if role != "system" or text.strip()]
    return turns


def split_at_reply(turns: Turns) -> tuple[Turns, str]:
    """The turns before the last assistant turn, and its text."""
    for index in reversed(range(len(turns))):
        role, text = turns[index]
        if role == "assistant":
            return turns[:index], text
    got = ", ".join(snippet(role) for role, _ in turns[-4:])
    raise RowReject("no_final_reply", expected="an assistant turn", got=got[:80])


def refuse_unsupported(fields: Mapping[str, Any], where: str) -> None:
    """RowReject when a row or a turn has content besides text in fields of its own."""
    for name, kind in _KIND_OF.items():
        if _filled(fields.get(name)):
            _refuse(kind, f"{where}{name}: {snippet(fields[name])}")


def leave_out(raw: Mapping[str, Any], kinds: Collection[str]) -> dict[str, Any]:
    """The row without content of these kinds, as if the source did not have it."""
    row = {}
    for name, value in raw.items():
        entries = _entries(value) if isinstance(value, str | list | dict) and _KIND_OF.get(name) not in kinds else None
        if entries and isinstance(entries[0], dict) and _role(entries[0]) is not None:
            row[name] = [kept for entry in entries if (kept := _cleaned(entry, kinds)) is not None]
        elif _KIND_OF.get(name) not in kinds:
            row[name] = value
    return row


def _cleaned(turn: Any, kinds: Collection[str]) -> Any:
    """The turn without content of these kinds; None when nothing else is in it."""
    if not isinstance(turn, dict):
        return turn
    if "tools" in kinds and _role(turn) == "tool":
        return None
    kept = {name: value for name, value in turn.items() if _KIND_OF.get(name) not in kinds}
    for name in _TEXT_FIELDS:
        if isinstance(kept.get(name), list):
            kept[name] = [part for part in kept[name] if _part_kind(part) not in kinds]
    return kept if kept == turn or first_of(_TEXT_FIELDS, kept) else None


def _entries(value: object) -> list[Any]:
    """The entries of a stored conversation; empty when it is none."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        value = _decoded(value)
    if isinstance(value, dict):
        columns = list(value.values())
        if columns and all(isinstance(column, list) for column in columns):
            same = len({len(column) for column in columns}) == 1
            return [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)] if same else []
        return [value]
    return value if isinstance(value, list) else []


def _decoded(text: str) -> object:
    """The value of JSON text, or as Python writes it; None for any other text."""
    for parse in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return parse(text.strip())
    return None


def _turns(entry: object, index: int) -> Turns:
    """The turns of one entry: one, or a question with its answer; none when it has neither."""
    if isinstance(entry, str):
        return [("user" if index % 2 == 0 else "assistant", entry)]
    if isinstance(entry, list | tuple) and len(entry) == 2 and all(isinstance(text, str) for text in entry):
        role = _ROLE_OF.get(_plain(entry[0]))
        return [(role, entry[1])] if role else [("user", entry[0]), ("assistant", entry[1])]
    if not isinstance(entry, dict):
        return []
    refuse_unsupported(entry, f"turn {index}, ")
    role = _role(entry)
    if role == "tool":
        _refuse("tools", f"turn {index}, by {snippet(first_of(_ROLE_FIELDS, entry))}")
    if role is not None:
        text = _text(first_of(_TEXT_FIELDS, entry), index)
        return [] if text is None else [(role, text)]
    spoken = [(_SPEAKERS.get(_plain(name)), value) for name, value in entry.items() if not missing(value)]
    by_role = {role: _text(value, index) for role, value in spoken if role}
    once = len(by_role) == sum(bool(role) for role, _ in spoken)
    return [(role, text) for role in _ROLE_NAMES if (text := by_role.get(role)) is not None] if once else []


def _role(turn: Mapping[str, Any]) -> str | None:
    role = first_of(_ROLE_FIELDS, turn)
    return _ROLE_OF.get(_plain(role), _plain(role)) if isinstance(role, str) else None


def _plain(name: object) -> str:
    """A speaker's name as the tables have it: `<|User|>` and `User:` are `user`."""
    return str(name).strip(" <|>:\n").lower()


def _text(content: object, index: int) -> str | None:
    """Text, or the texts of parts joined as chat templates do it; None for anything else."""
    parts = content if isinstance(content, list) else [content]
    if kind := next((kind for kind in map(_part_kind, parts) if kind), None):
        _refuse(kind, f"turn {index}: {shape(parts)}")
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    words = [text for text in texts if isinstance(text, str)]
    return "".join(words) if words and len(words) == len(texts) else None


def _part_kind(part: object) -> str | None:
    """What a part of a turn's content is besides text."""
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str) or kind in ("text", "input_text", "output_text"):
        return None
    words = {"image": "images", "audio": "audio", "video": "videos", "tool": "tools", "function": "tools"}
    return next((named for word, named in words.items() if word in kind), "other")


def _filled(value: object) -> bool:
    return not missing(value) and str(value).strip().lower() not in _EMPTY


def _refuse(kind: str, got: str) -> None:
    raise RowReject("unsupported_content", expected=f"text alone (source.ignore={kind} leaves it out)", got=got)
