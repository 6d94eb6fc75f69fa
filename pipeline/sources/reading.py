"""What a source name and an input mean, and every row of it.

`resolve` looks and decides; `records` reads. Between them stands a `ResolvedSource`, whose digest covers all that
determines the rows: a file's bytes, or the Hub's commit.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline import resources
from pipeline.errors import InputError, RowReject
from pipeline.sources import files, hub, rows
from pipeline.sources.files import SourceFile
from pipeline.sources.row import Adapter
from pipeline.sources.text import shown

Warn = Callable[[str], None]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class ResolvedSource:
    """What will be read. `location` is a path or a Hub id; `revision` is the Hub's commit, None for files.

    `split` is the one that was asked for or is read, "all" when every file is read whatever split its name tells.
    """

    adapter: str
    location: str
    resolved: Literal["hub", "file", "bundled-sample"]
    revision: str | None
    split: str
    licence: str
    digest: str
    files: tuple[SourceFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """One row as it lies in the source, or why there is none. `source_row` counts all rows from 0, bad ones too."""

    source_row: int
    where: str
    split: str
    value: dict[str, Any] | RowReject


def resolve(
    name: str,
    input: str | None = None,
    *,
    split: str | None = None,
    revision: str | None = None,
    require_full: bool = False,
    warn: Warn,
) -> ResolvedSource:
    """Find the data and pin it. InputError says in one line what is missing and what to do.

    An input that exists is a file or folder; else `owner/name` is a Hub id. Only without an input does an unreachable
    Hub lead to the bundled sample (with a warning), and not even then with `require_full`.
    """
    from pipeline.sources import get

    adapter = get(name)
    if input is None:
        if adapter.hub_id is None:
            raise InputError(
                f"source {name!r} has no data set of its own; give a file, a folder or a Hub id with --input"
            )
        return _default(adapter, adapter.hub_id, split, revision, require_full, warn)
    try:
        path = Path(input).expanduser()
        exists = path.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"input {shown(input[:200])!r} can't be looked at: {shown(error)}") from error
    if exists:
        return _local(adapter, path, split, warn)
    if _HUB_ID.fullmatch(input) and not files.is_data_name(input):
        try:
            return _from_hub(adapter, input, split, revision)
        except hub.HubUnreachable as error:
            raise InputError(
                f"{shown(input)}: no such file or folder, and the Hub can't be asked for a data set of that name "
                f"({error}); check the path, or try again online"
            ) from error
    raise InputError(f"{shown(input)}: no such file or folder; --input takes a file, a folder or a Hub id (owner/name)")


def records(source: ResolvedSource, *, warn: Warn = lambda message: None) -> Iterator[Record]:
    """Every row in a fixed order, each once; a bad row is a Record whose value is a RowReject.

    InputError when the source as a whole can't be read further, or holds no row at all.
    """
    found = _hub_records(source) if source.resolved == "hub" else _file_records(source, warn)
    nothing = True
    for index, (where, split, value) in enumerate(found):
        nothing = False
        yield Record(index, where, split, value)
    if nothing:
        raise InputError(f"{source.location}: no rows in it; expected {_expected(source)}")


def _default(
    adapter: Adapter, hub_id: str, split: str | None, revision: str | None, require_full: bool, warn: Warn
) -> ResolvedSource:
    """The adapter's own data set, or the sample that ships when the Hub doesn't give it."""
    try:
        return _from_hub(adapter, hub_id, split, revision)
    except (hub.HubUnreachable, InputError) as error:
        why = f"the Hub did not give {hub_id} ({error})"
        sample = resources.folder("data") / f"{adapter.name}-sample.jsonl"
        if revision is not None:
            raise InputError(f"{why}, and the sample is no substitute for revision {revision!r}; try online") from error
        if require_full:
            raise InputError(
                f"{why}, and the full source is required; try online, or give a local copy with --input"
            ) from error
        if not sample.is_file():
            raise InputError(
                f"{why}, and no sample is installed; try online, or give a local copy with --input"
            ) from error
        warn(f"{why}; using the bundled sample {sample.name} instead (--require-full-source makes this an error)")
    digest = _digest(adapter, [("sample", sample)])
    bundled = (SourceFile(sample, "sample"),)
    return ResolvedSource(adapter.name, sample.name, "bundled-sample", None, "sample", "Apache-2.0", digest, bundled)


def _from_hub(adapter: Adapter, hub_id: str, split: str | None, revision: str | None) -> ResolvedSource:
    pinned = hub.pin(hub_id, revision)
    split = split or (adapter.hub_split if hub_id == adapter.hub_id else "train")
    licence = pinned.licence or (adapter.licence if hub_id == adapter.hub_id else "unknown")
    digest = _hash(adapter, ["hub", hub_id, pinned.sha, split])
    return ResolvedSource(adapter.name, hub_id, "hub", pinned.sha, split, licence, digest)


def _local(adapter: Adapter, path: Path, split: str | None, warn: Warn) -> ResolvedSource:
    try:
        found = files.find(path, warn)
        kept = [file for file in found if split is None or (file.split or split) == split]
        if not kept:
            known = ", ".join(sorted({file.split for file in found if file.split}))
            raise InputError(f"{shown(path)}: no file of split {split!r}; the file names tell {known}")
        empty = [file.path for file in kept if file.path.stat().st_size == 0]
        if len(empty) == len(kept):
            raise InputError(f"{shown(path)}: empty, 0 bytes; expected {adapter.expected}, one JSON object a line")
        for file in empty:
            warn(f"{shown(file)}: empty, 0 bytes; it adds no row")
        pairs = [(file.split or split or "train", file.path) for file in kept]
        digest = _digest(adapter, pairs)
    except OSError as error:
        raise InputError(
            f"{shown(error.filename or path)}: can't be read ({error.strerror or shown(error)}); check its permissions"
        ) from error
    read = tuple(SourceFile(file, label) for label, file in pairs)
    labels = {label for label, _ in pairs}
    return ResolvedSource(
        adapter.name, shown(path), "file", None, labels.pop() if len(labels) == 1 else "all", "unknown", digest, read
    )


def _file_records(source: ResolvedSource, warn: Warn) -> Iterator[tuple[str, str, dict[str, Any] | RowReject]]:
    for file in source.files:
        name = shown(file.path)
        for number, value in rows.rows(file.path, warn):
            yield f"{name}:{number}", file.split or "train", value


def _hub_records(source: ResolvedSource) -> Iterator[tuple[str, str, dict[str, Any] | RowReject]]:
    sha = source.revision or ""
    for number, value in enumerate(hub.rows(source.location, sha, source.split), 1):
        yield f"{source.location}@{sha[:12]}:{source.split}:{number}", source.split, value


def _digest(adapter: Adapter, pairs: Iterable[tuple[str, Path]]) -> str:
    """Of the files' bytes in reading order, and their splits. Names and places are left out: moving changes no row."""
    parts = ["files"]
    for split, path in pairs:
        with path.open("rb") as file:
            parts += [split, hashlib.file_digest(file, "sha256").hexdigest()]
    return _hash(adapter, parts)


def _hash(adapter: Adapter, parts: list[str]) -> str:
    whole = "\0".join([adapter.name, str(adapter.version), *parts])
    return hashlib.sha256(whole.encode(errors="surrogatepass")).hexdigest()


def _expected(source: ResolvedSource) -> str:
    from pipeline.sources import get

    return f"{get(source.adapter).expected}, one JSON object a line"
