"""Text at the boundary: what is repaired, and how a value is shown to a person.

Only lone surrogates are repaired, because nothing downstream can store them. NUL, byte order marks inside text,
bidirectional controls and the Unicode normal form are the author's: they pass unchanged.
"""

from __future__ import annotations

import re
import reprlib
from typing import Any

SNIPPET = 80
_SURROGATE = re.compile("[\ud800-\udfff]")

_short = reprlib.Repr()
_short.maxstring = SNIPPET
_short.maxother = SNIPPET
_short.maxlevel = 2
_short.maxdict = _short.maxlist = 4


def encodable(text: str) -> bool:
    """Whether UTF-8 can hold the text: there is no lone surrogate in it."""
    if text.isascii():  # known without looking at the characters
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def replace_surrogates(text: str) -> tuple[str, int]:
    """The text with every lone surrogate as U+FFFD, and how many there were."""
    return (text, 0) if encodable(text) else _SURROGATE.subn("\ufffd", text)


def snippet(value: Any) -> str:
    """At most 80 characters that show a value of any size or depth on one line of a terminal, controls escaped."""
    try:
        text = repr(value[:SNIPPET]) if isinstance(value, (str, bytes)) else _short.repr(value)
    except ValueError:  # an integer of thousands of digits, which Python doesn't write out
        text = f"{type(value).__name__} with a number too long to show"
    return text if len(text) <= SNIPPET else text[: SNIPPET - 1] + "…"


def shown(path: object) -> str:
    """A path or id as text that can be printed and stored: a file's name may hold line breaks and invalid UTF-8."""
    text = str(path)
    escaped = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return text if text.isprintable() else escaped


def shape(value: Any) -> str:
    """What a value looks like, for the `got` of a reject: the fields of an object with their types, else the type."""
    if not isinstance(value, dict):
        return f"{_kind(value)} {snippet(value)}"
    if not value:
        return "an object without fields"
    fields = ", ".join(f"{_bare(name)}: {_kind(item)}" for name, item in list(value.items())[:8])
    return fields if len(fields) <= 2 * SNIPPET else fields[: 2 * SNIPPET - 1] + "…"


def _bare(name: str) -> str:
    return name if name.isidentifier() and len(name) <= 40 else snippet(name[:40])


def _kind(value: Any) -> str:
    """JSON's word for a Python value's type."""
    if value is None:
        return "null"
    names = {str: "string", bool: "boolean", int: "number", float: "number", list: "list", dict: "object"}
    return names.get(type(value), type(value).__name__)
