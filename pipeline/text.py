"""Text for messages, reports and published files: short, printable, and without the folders of this machine.

Only lone surrogates are ever repaired in a source's text, because UTF-8 can't store them. NUL, byte order marks,
bidirectional controls and the Unicode normal form pass unchanged.
"""

import difflib
import re
import reprlib
import unicodedata
from collections.abc import Iterable
from typing import Any

SNIPPET = 80
_SURROGATE = re.compile("[\ud800-\udfff]")

# The mark of a query that `config.addresses` keeps may stay.
_QUERY = re.compile(r"(https?://[^\s?#'\"<>]+)\?(?!…)[^\s'\"<>]+", re.IGNORECASE)
_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/?#'\"<>]*@", re.IGNORECASE)

_short = reprlib.Repr()
_short.maxstring = _short.maxother = SNIPPET
_short.maxlevel = 2
_short.maxdict = _short.maxlist = 4

# Characters that Unicode doesn't class as control or format and that no terminal shows: blanks of Hangul and Braille,
# variation selectors, no-break spaces.
_UNSEEN = re.compile(
    "[\u00a0\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2007\u202f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_UNSEEN_CATEGORIES = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")

# Keys of a manifest that hold a path, or a model's name that may be one. Other texts may begin with a slash as well.
_PATH_KEYS = ("decontaminate", "input", "location", "model", "name", "prompts", "tokenizer", "where")
_SEPARATORS = re.compile(r"(, ?| \+ )")
# The model of `hf/` may be a folder.
_FOLDERS = re.compile(r"^(hf/|file://|)/(?:[^/]+/)*(?=[^/])")


def one_line(value: object, limit: int = 200) -> str:
    """The text of a value, such as an error, on one line of at most `limit` characters; `…` marks a cut.

    Errors repeat what servers and libraries say: controls are made visible, and addresses lose their query.
    """
    return _cut(visible(without_queries(" ".join(str(value)[: 8 * limit + 1000].split()))), limit)


def without_queries(text: str) -> str:
    """The text with the queries and passwords of web addresses, which may be keys or signatures, as `…`.

    >>> without_queries("GET https://ann:pw@host/x.jsonl?sig=abc failed")
    'GET https://…@host/x.jsonl?… failed'
    """
    return _QUERY.sub(r"\1?…", _PASSWORD.sub(r"\1…@", text))


def describe_error(error: BaseException, limit: int = 200) -> str:
    """An error's class and its text, on one line."""
    return f"{type(error).__name__}: {one_line(error, limit)}"


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The end of a message about an unknown word: the nearest known one, or nothing."""
    near = difflib.get_close_matches(word, list(known), 1, cutoff)
    return f"; did you mean {near[0]}?" if near else ""


def visible(text: str) -> str:
    """The text with every character that can't be seen, other than line feeds, written as its code: `<202e>`."""
    unseen = {c for c in set(text) - {"\n"} if _UNSEEN.match(c) or unicodedata.category(c) in _UNSEEN_CATEGORIES}
    return "".join(f"<{ord(char):04x}>" if char in unseen else char for char in text)


def shown(path: object) -> str:
    """A path, id or error with unprintable characters escaped: a file's name may hold line breaks and invalid UTF-8."""
    text = without_queries(str(path))
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def snippet(value: Any) -> str:
    """A value of any size or depth as one line of at most 80 characters, controls escaped."""
    try:
        text = repr(value[:SNIPPET]) if isinstance(value, (str, bytes)) else _short.repr(value)
    except ValueError:  # Python doesn't write out an integer of thousands of digits
        text = f"{type(value).__name__} with a number too long to show"
    return _cut(text, SNIPPET)


def shape(value: Any) -> str:
    """What a value looks like: an object's fields with their JSON types, else the value's type and a snippet."""
    if not isinstance(value, dict):
        return f"{_json_type(value)} {snippet(value)}"
    if not value:
        return "an object without fields"
    fields = ", ".join(f"{_field(name)}: {_json_type(item)}" for name, item in list(value.items())[:8])
    return _cut(fields, 2 * SNIPPET)


def replace_surrogates(text: str) -> tuple[str, int]:
    """The text with every lone surrogate as U+FFFD, and how many there were."""
    return (text, 0) if text.isascii() else _SURROGATE.subn("\ufffd", text)


def redact_paths(value: Any) -> Any:
    """A manifest, or a part of one, with absolute paths cut to their last part: `/home/ann/tokenizer` → `tokenizer`.

    The manifest in the output folder keeps whole paths, with which `verify`, `relabel` and `report` open a tokenizer's
    folder. Parquet files, card, report and what `push` sends hold redacted ones.
    """
    if isinstance(value, dict):
        return {key: _redact(item) if key in _PATH_KEYS else redact_paths(item) for key, item in value.items()}
    return [redact_paths(item) for item in value] if isinstance(value, list | tuple) else value


def without_folders(text: str) -> str:
    """One or several paths or model names, absolute paths cut to their last part."""
    return "".join(_FOLDERS.sub(r"\1", part) for part in _SEPARATORS.split(text))


def _redact(value: Any) -> Any:
    if isinstance(value, str):
        return without_folders(value)
    return [_redact(part) for part in value] if isinstance(value, list | tuple) else redact_paths(value)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _field(name: str) -> str:
    return name if name.isidentifier() and len(name) <= 40 else snippet(name[:40])


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    names = {str: "string", bool: "boolean", int: "number", float: "number", list: "list", dict: "object"}
    return names.get(type(value), type(value).__name__)
