"""Which files an input means, in which order, and which splits their names tell: local ones, or behind a URL by fsspec.

Remote files are read by blocks. Their addresses are recorded without the query string, which may be a signature. Of a folder
that is a data set of the Hub, cloned, or one that `datasets` saved, one split is read: its card (README.md) may list the files
of each, for one or several configurations; else the files' names tell.
"""

import fnmatch
import glob
import hashlib
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import yaml

from pipeline.errors import InputError
from pipeline.storage.remote import Stream, attempt, content_tag, filesystem, holds_secrets, is_url
from pipeline.text import shown, snippet

PACKED = (".gz", ".zst", ".bz2")
SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv", ".arrow")
WANTED = f"UTF-8 JSON Lines, CSV or TSV, plain or packed as {', '.join(PACKED)}, or Parquet or Arrow"
# What `datasets` writes about a data set, beside it.
_ABOUT = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
# What marks a folder as a data set, beside a card with facts at its head.
_MARKS = (".git", ".gitattributes", "dataset_dict.json")
Warn = Callable[[str], None]
_WEB = ("http", "https")
_SPLIT_OF = (
    dict.fromkeys(("train", "training"), "train")
    | dict.fromkeys(("test", "testing", "eval", "evaluation"), "test")
    | dict.fromkeys(("validation", "valid", "val", "dev"), "validation")
)


class RemoteFile(NamedTuple):
    """One file behind a URL. size: bytes, -1 if unknown; tag: the store's own hash or version of the content, if any."""

    url: str
    size: int = -1
    tag: str | None = None

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(query="", fragment="")) if parts.scheme in _WEB else self.url

    @property
    def name(self) -> str:
        return PurePosixPath(str(self)).name

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """The bytes. Whatever the protocol's library raises, here and later, is an OSError."""
        fs, path = attempt(lambda: filesystem(self.url))
        return io.BufferedReader(Stream(attempt(lambda: fs.open(path, mode))), 1 << 20)


Location = Path | RemoteFile


class SourceFile(NamedTuple):
    """One file to read, and the split of its rows (None when its name tells none)."""

    path: Location
    split: str | None


Files = tuple[SourceFile, ...]


def find_input(input: str, warn: Warn) -> Files:
    """The files of a path, else glob, or URL; empty when it can only be something else. InputError says what is wrong."""
    if is_url(input):
        listed = _find_remote(input)
        # A single file may have any name.
        names = list(listed) if len(listed) == 1 else _data_names(RemoteFile(input), listed, warn)
        return tuple(SourceFile(listed[name], split_of(name)) for name in names)
    try:
        path = Path(input).expanduser()
        if path.is_file():
            return (SourceFile(path, split_of(path.name)),)
        if path.is_dir():
            base, names = path, list(_walk(path, path))
        elif path.exists():
            hint = "give a data file or a folder of them"
            raise InputError(f"{shown(path)}: neither a regular file nor a folder; {hint}")
        elif glob.has_magic(input):
            base, names = _match(path)
        else:
            return ()
        return tuple(SourceFile(base / name, split_of(name)) for name in _data_names(path, names, warn))
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"input {shown(input[:200])!r} can't be looked at: {shown(error)}") from error


def _walk(folder: Path, root: Path) -> Iterator[str]:
    """The names, relative to `root`, of all files, and of links to folders, in a folder and those below it."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path, root)
        else:
            _refuse_escape(path, root)
            # A slash keeps a pipe or a link to a folder from passing for a data file of that name.
            yield path.relative_to(root).as_posix() + ("" if path.is_file() else "/")


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


def _find_remote(url: str) -> dict[str, RemoteFile]:
    """Every file that a URL means, by its name below it; a glob's matches likewise. InputError when there is none."""
    if holds_secrets(url):
        raise InputError("an input's URL may hold no user name, password or '::'; give credentials in the environment")
    try:
        return attempt(lambda: _list(url))
    except OSError as error:
        missing = "no such file or folder, or nothing answers at that address"
        what = missing if isinstance(error, FileNotFoundError) else f"can't be reached ({shown(error)})"
        raise InputError(f"{shown(RemoteFile(url))}: {what}") from error


def _list(url: str) -> dict[str, RemoteFile]:
    fs, root = filesystem(url)
    if urlsplit(url).scheme in _WEB:
        # Listing a web page means following its links, wherever they lead.
        return {RemoteFile(url).name: _remote_file(url, fs.info(root))}
    base = root.rpartition("/")[0]
    if glob.has_magic(root):
        base = re.split(r"[*?\[]", root, maxsplit=1)[0].rpartition("/")[0]
        entries = fs.glob(root, detail=True)
    elif fs.isfile(root):
        entries = {root: fs.info(root)}
    else:
        base, entries = root.rstrip("/"), fs.find(root, detail=True)
    files = {name: info for name, info in sorted(entries.items()) if info.get("type") == "file"}
    if not files:
        raise FileNotFoundError(url)
    return {name.removeprefix(base).lstrip("/"): _remote_file(fs.unstrip_protocol(name), files[name]) for name in files}


def _remote_file(url: str, info: dict[str, Any]) -> RemoteFile:
    size = info.get("size")
    return RemoteFile(url, -1 if size is None else int(size), content_tag(info))


def one_split(folder: Path, files: Files, split: str | None, likely: Sequence[str | None], warn: Warn) -> Files:
    """The files of the split `split`, else of the first of `likely` or of train; all files where the folder is no data set.

    likely: names of splits and configurations. InputError when there is no such split, or the configuration must be chosen.
    """
    card = _front_matter(folder / "README.md")
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


def is_data_name(name: str) -> bool:
    """Whether a file of this name is read when its folder is the input."""
    return bare_name(name).endswith(SUFFIXES) and PurePosixPath(name).name not in _ABOUT


def bare_name(name: str) -> str:
    """A file's name in lower case without the suffixes of packed files."""
    name = name.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    return name


def split_of(name: str) -> str | None:
    """The split that a file's name tells, by the words that `datasets` looks for too; the last such word counts."""
    words = reversed(re.split(r"[^a-z]+", name.lower()))
    return next((_SPLIT_OF[word] for word in words if word in _SPLIT_OF), None)


def size(path: Location) -> int:
    """Bytes; -1 when a remote store doesn't say."""
    return path.size if isinstance(path, RemoteFile) else path.stat().st_size


def content(path: Location) -> str:
    """What identifies the file's content: its hash, or the one that a remote store keeps. InputError if unreadable."""
    if isinstance(path, RemoteFile) and path.tag is not None:
        return f"{path.size} {path.tag}"
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        reason = error.strerror or shown(error)
        raise InputError(f"{shown(path)}: can't be read ({reason}); check its permissions") from error


def _data_names(place: object, names: Iterable[str], warn: Warn) -> list[str]:
    """The data files among names, sorted, without hidden ones; a warning about the others. InputError when there is none."""
    visible = {name for name in names if not any(part.startswith(".") for part in PurePosixPath(name).parts)}
    data = sorted(name for name in visible if is_data_name(name))
    foreign = sorted(name for name in visible.difference(data) if PurePosixPath(name).name not in _ABOUT)
    if foreign:
        listed = ", ".join(snippet(name) for name in foreign[:5]) + (", …" if len(foreign) > 5 else "")
        warn(f"{shown(place)}: skipped {len(foreign)} entries that are not data files: {listed}")
    if not data:
        wanted = f"*{', *'.join(SUFFIXES)}, plain or with {', '.join(PACKED)}"
        raise InputError(f"{shown(place)}: no data file in this folder; expected {wanted}")
    return data


def _refuse_escape(path: Path, root: Path) -> None:
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        leads = f"a symbolic link that leads out of the input folder, to {shown(path.resolve())}"
        raise InputError(f"{shown(path)}: {leads}; put the file itself there, or give that file as the input")
