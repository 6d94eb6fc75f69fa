"""Folders that are a data set of the Hub, cloned, or one that `datasets` saved: which of their files are one split.

A card (README.md) may list the files of each split, for one or several configurations; else the files' names tell.
"""

import fnmatch
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import InputError
from pipeline.sources.files import Files, SourceFile, Warn
from pipeline.text import shown

_CARD = "README.md"
_MARKS = (".git", ".gitattributes", "dataset_dict.json")


def one_split(folder: Path, files: Files, split: str | None, likely: Sequence[str | None], warn: Warn) -> Files:
    """The files of the split `split`, else of the first of `likely` or of train; all files where the folder is no data set.

    likely: names of splits and configurations. InputError when there is no such split, or the configuration must be chosen.
    """
    card = _front_matter(folder / _CARD)
    if card is None and not any((folder / mark).exists() for mark in _MARKS):
        return files
    listed = list(_listed((card or {}).get("configs"), folder, likely))
    splits: dict[str, list[SourceFile]] = {}
    for file in files:
        name = file.path.relative_to(folder).as_posix() if isinstance(file.path, Path) else ""
        found = next((known for known, pattern in listed if fnmatch.fnmatchcase(name, pattern)), None)
        splits.setdefault(found or ("" if listed else file.split or "train"), []).append(file._replace(split=found))
    other = splits.pop("", [])
    wanted = [split] if split else [*likely, "train", *(splits if len(splits) == 1 else ())]
    chosen = next((name for name in wanted if name in splits), None)
    if chosen is None:
        known = f"it has {', '.join(sorted(splits)) or 'none'}; name one with --set source.split=NAME"
        raise InputError(f"{shown(folder)}: a data set without split {split or 'train'!r}: {known}")
    rest = [f"split {name}" for name in sorted(splits) if name != chosen] + [f"{len(other)} other files"] * bool(other)
    if rest:
        warn(
            f"{shown(folder)}: a data set, of which split {chosen} is read, without {', '.join(rest)} (see source.split)"
        )
    return tuple(file._replace(split=chosen) for file in splits[chosen])


def _front_matter(card: Path) -> dict[str, Any] | None:
    """The facts at the head of a data set's card; None without any."""
    text = card.read_text("utf-8", "replace") if card.is_file() else ""
    try:
        facts = yaml.safe_load(text.split("\n---", 1)[0]) if text.startswith("---") else None
    except yaml.YAMLError:
        return {}
    return facts if isinstance(facts, dict) else None


def _listed(configs: Any, folder: Path, likely: Sequence[str | None]) -> Iterator[tuple[str, str]]:
    """(split, pattern of files) of the configuration in `likely`, else the default one; nothing where the card lists none."""
    named = {str(each.get("config_name", "default")): each for each in configs or () if isinstance(each, dict)}
    named = {name: each for name, each in named.items() if {"data_files", "data_dir"} & set(each)}
    marked = [name for name, each in named.items() if each.get("default")]
    name = next((name for name in (*likely, *marked, "default") if name in named), next(iter(named), None))
    if name is None:
        return
    if len(named) > 1 and name not in (*likely, *marked, "default"):
        hint = "give the folder or the files of one as --input"
        raise InputError(f"{shown(folder)}: a data set of several configurations, {', '.join(named)}; {hint}")
    root, entries = str(named[name].get("data_dir") or "."), named[name].get("data_files", "*")
    if isinstance(entries, dict):
        entries = [{"split": split, "path": path} for split, path in entries.items()]
    for entry in entries if isinstance(entries, list) else [entries]:
        named_split = entry if isinstance(entry, dict) else {"path": entry}
        paths = named_split.get("path", "*")
        for path in paths if isinstance(paths, list) else [paths]:
            yield str(named_split.get("split", "train")), (Path(root) / str(path)).as_posix().replace("**/", "*")
