"""Text as it may be published or shown: without the machine's folders, and with invisible characters as codes.

What is published names no folder of the machine that made it: of an absolute path, only what it ends in.
The manifest in the output folder keeps whole paths, by which `verify`, `relabel` and `report` find a tokenizer's folder.
Parquet files, card and report never have them, and `push` sends a manifest without.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

# Keys that hold a path, or the name of a model that may be one. By key, for a system prompt may begin with a slash as well.
_PLACES = ("decontaminate", "input", "location", "model", "name", "prompts", "tokenizer", "where")
# Between paths that stand in one text.
_BETWEEN = re.compile(r"(, ?| \+ )")
# A folder may be the model of `hf/`.
_FOLDERS = re.compile(r"^(hf/|file://|)/(?:[^/]+/)*(?=[^/])")

# What terminals and browsers don't show, and Unicode doesn't class as control or format: blanks of Hangul and Braille,
# variation selectors, spaces that don't break.
_UNSEEN = re.compile(
    "[\u00a0\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2007\u202f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_UNSEEN_CATEGORIES = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def portable(told: Any) -> Any:
    """A manifest, or a part of one, without folders: `/home/ann/tokenizer` becomes `tokenizer`."""
    if isinstance(told, dict):
        return {key: _placeless(value) if key in _PLACES else portable(value) for key, value in told.items()}
    return [portable(value) for value in told] if isinstance(told, list | tuple) else told


def without_folders(text: str) -> str:
    """One or several paths, or names of models, with the last part alone of those that are absolute."""
    return "".join(_FOLDERS.sub(r"\1", part) for part in _BETWEEN.split(text))


def _placeless(value: Any) -> Any:
    if isinstance(value, str):
        return without_folders(value)
    return [_placeless(part) for part in value] if isinstance(value, list | tuple) else portable(value)


def visible(text: str) -> str:
    """The text with every control, format, bidi or otherwise invisible character, except line feeds, as its code."""
    return "".join(f"<{ord(c):04x}>" if c != "\n" and _unseen(c) else c for c in text)


def _unseen(character: str) -> bool:
    return bool(_UNSEEN.match(character)) or unicodedata.category(character) in _UNSEEN_CATEGORIES
