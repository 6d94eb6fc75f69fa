"""Which files an input means, in which order, and which splits their names tell."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.errors import InputError
from pipeline.sources import remote
from pipeline.sources.remote import RemoteFile
from pipeline.storage.filesystems import is_url
from pipeline.text import shown, snippet

PACKED = (".gz", ".zst", ".bz2")
SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv")
WANTED = f"UTF-8 JSON Lines, CSV or TSV, plain or packed as {', '.join(PACKED)}, or Parquet"
Location = Path | RemoteFile
Warn = Callable[[str], None]
_SPLIT_OF = (
    dict.fromkeys(("train", "training"), "train")
    | dict.fromkeys(("test", "testing", "eval", "evaluation"), "test")
    | dict.fromkeys(("validation", "valid", "val", "dev"), "validation")
)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to read, and the split of its rows (None when its name tells none)."""

    path: Location
    split: str | None


def find_input(input: str, warn: Warn) -> tuple[SourceFile, ...]:
    """The files that an input means: a path, a glob or a URL. Empty when it can only be something else.

    A path that exists goes before a glob of the same letters. InputError says in one line what is wrong with an input.
    """
    if is_url(input):
        place, listed = remote.find(input)
        # A single file may have any name.
        names = list(listed) if len(listed) == 1 else _data_names(place, listed, warn)
        return tuple(SourceFile(listed[name], split_of(name)) for name in names)
    try:
        path = Path(input).expanduser()
        if path.is_file():
            return (SourceFile(path, split_of(path.name)),)
        if path.exists():
            base, names = path, _walk(path)
        elif glob.has_magic(input):
            base, names = _match(path)
        else:
            return ()
        return tuple(SourceFile(base / name, split_of(name)) for name in _data_names(path, names, warn))
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"input {shown(input[:200])!r} can't be looked at: {shown(error)}") from error


def _walk(root: Path) -> list[str]:
    """The relative names of all files, and of links to folders, below a folder."""
    if not root.is_dir():
        raise InputError(
            f"{shown(root)}: neither a regular file nor a folder; give a JSON Lines file or a folder of them"
        )
    names: list[str] = []
    for folder, subfolders, files in os.walk(root, onerror=_raise):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        links = [name for name in subfolders if Path(folder, name).is_symlink()]  # os.walk doesn't follow them
        for path in (Path(folder, name) for name in [*links, *files] if not name.startswith(".")):
            _refuse_escape(path, root)
            # A slash keeps a pipe or a link to a folder from passing for a data file of that name.
            names.append(path.relative_to(root).as_posix() + ("" if path.is_file() else "/"))
    return names


def _match(pattern: Path) -> tuple[Path, list[str]]:
    """A glob's last folder without a wild card, and the files below it that match (`**` goes through subfolders)."""
    fixed = next(index for index, part in enumerate(pattern.parts) if glob.has_magic(part))
    base = Path(*pattern.parts[:fixed])
    matches = [match for match in base.glob(str(Path(*pattern.parts[fixed:]))) if not match.is_dir()]
    if not matches:
        raise InputError(f"{shown(pattern)}: no file matches")
    for match in matches:
        _refuse_escape(match, base)
    return base, [match.relative_to(base).as_posix() for match in matches]


def is_data_name(name: str) -> bool:
    """Whether a file of this name is read when its folder is the input."""
    return bare_name(name).endswith(SUFFIXES)


def bare_name(name: str) -> str:
    """A file's name in lower case without the suffixes of packed files."""
    name = name.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    return name


def split_of(name: str) -> str | None:
    """The split that a file's name tells, by the words that `datasets` looks for too; the last such word counts."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((_SPLIT_OF[word] for word in reversed(words) if word in _SPLIT_OF), None)


def size(path: Location) -> int:
    """Bytes; -1 when a remote store doesn't say. InputError when the file can't be looked at."""
    with _readable(path):
        return path.size if isinstance(path, RemoteFile) else path.stat().st_size


def content(path: Location) -> str:
    """What identifies the file's content: its hash, or the one that a remote store keeps. InputError as above."""
    if isinstance(path, RemoteFile) and path.tag is not None:
        return f"{path.size} {path.tag}"
    with _readable(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _readable(path: Location) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or shown(error)
        raise InputError(f"{shown(path)}: can't be read ({reason}); check its permissions") from error


def _data_names(place: object, names: Iterable[str], warn: Warn) -> list[str]:
    """The data files among names, sorted, with one warning about the others. InputError when there is none.

    Hidden files and those in hidden folders are ignored.
    """
    visible = {name for name in names if not any(part.startswith(".") for part in PurePosixPath(name).parts)}
    data = sorted(name for name in visible if is_data_name(name))
    foreign = sorted(visible.difference(data))
    if foreign:
        listed = ", ".join(snippet(name) for name in foreign[:5]) + (", …" if len(foreign) > 5 else "")
        warn(f"{shown(place)}: skipped {len(foreign)} entries that are not data files: {listed}")
    if not data:
        wanted = ", ".join(f"*{suffix}" for suffix in SUFFIXES)
        raise InputError(
            f"{shown(place)}: no data file in this folder; expected {wanted}, plain or with {', '.join(PACKED)}"
        )
    return data


def _refuse_escape(path: Path, root: Path) -> None:
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        raise InputError(
            f"{shown(path)}: a symbolic link that leads out of the input folder, to {shown(path.resolve())}; "
            "put the file itself into the folder, or give that file as the input"
        )


def _raise(error: OSError) -> None:
    raise error
