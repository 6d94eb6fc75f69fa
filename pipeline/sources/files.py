"""Which local files an input means, in which order, and what their names tell of their split."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError
from pipeline.sources.rows import PACKED
from pipeline.sources.text import shown, snippet

SUFFIXES = (".jsonl", ".ndjson", ".json")
_SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing", "eval", "evaluation"),
    "validation": ("validation", "valid", "val", "dev"),
}
_SPLIT_OF = {word: split for split, words in _SPLITS.items() for word in words}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to read, and the split of its rows (None while its name tells none)."""

    path: Path
    split: str | None


def find(path: Path, warn: Callable[[str], None]) -> tuple[SourceFile, ...]:
    """The files that an existing path means: itself, or a folder's data files, subfolders included, by relative name.

    Foreign files are skipped with one warning, hidden ones without; a link that leads out of the folder is refused.
    """
    if path.is_file():
        return (SourceFile(path, split_of(path.name)),)
    if not path.is_dir():
        raise InputError(
            f"{shown(path)}: neither a regular file nor a folder; give a JSON Lines file or a folder of them"
        )
    found, foreign = _walk(path)
    if foreign:
        names = ", ".join(snippet(name) for name in foreign[:5]) + (", …" if len(foreign) > 5 else "")
        warn(f"{shown(path)}: skipped {len(foreign)} entries that are not JSON Lines files: {names}")
    if not found:
        wanted = ", ".join(f"*{suffix}" for suffix in SUFFIXES)
        raise InputError(
            f"{shown(path)}: no data file in this folder; expected {wanted}, plain or with {', '.join(PACKED)}"
        )
    return tuple(SourceFile(path / name, split_of(name)) for name in found)


def is_data_name(name: str) -> bool:
    """Whether a file of this name is read when its folder is the input."""
    name = name.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    return name.endswith(SUFFIXES)


def split_of(name: str) -> str | None:
    """The split a file's name tells, by the words that `datasets` goes by too; the last such word counts."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((_SPLIT_OF[word] for word in reversed(words) if word in _SPLIT_OF), None)


def _walk(root: Path) -> tuple[list[str], list[str]]:
    """The names of data files and of everything else below a folder, relative and sorted."""
    found: list[str] = []
    foreign: list[str] = []
    for folder, subfolders, names in os.walk(root, onerror=_raise):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        links = [name for name in subfolders if Path(folder, name).is_symlink()]  # os.walk doesn't follow them
        for name in [*links, *(name for name in names if not name.startswith("."))]:
            path = Path(folder, name)
            if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
                raise InputError(
                    f"{shown(path)}: a symbolic link that leads out of the input folder, to {shown(path.resolve())}; "
                    "put the file itself into the folder, or give that file as the input"
                )
            (found if is_data_name(name) and path.is_file() else foreign).append(path.relative_to(root).as_posix())
    return sorted(found), sorted(foreign)


def _raise(error: OSError) -> None:
    raise error
