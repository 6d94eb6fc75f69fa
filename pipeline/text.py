"""What is published names no folder of the machine that made it: of an absolute path, only what it ends in.

The manifest in the output folder keeps whole paths, by which `verify`, `relabel` and `report` find a tokenizer's folder.
Parquet files, card and report never have them, and `push` sends a manifest without.
"""

from __future__ import annotations

import re
from typing import Any

# Keys that hold a path, or the name of a model that may be one. By key, for a system prompt may begin with a slash as well.
_PLACES = ("decontaminate", "input", "location", "model", "name", "prompts", "tokenizer", "where")
# Between paths that stand in one text.
_BETWEEN = re.compile(r"(, ?| \+ )")
# A folder may be the model of `hf/`.
_FOLDERS = re.compile(r"^(hf/|file://|)/(?:[^/]+/)*(?=[^/])")


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
