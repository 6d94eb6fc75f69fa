"""What the name and the input of one source mean, and every row of it.

`resolve` looks and decides; `records` reads. Between them stands a `ResolvedSource`, whose digest covers all that
determines the rows: a file's bytes, or the Hub's commit. Several sources in one run: `mixing.py`, on top of this.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pipeline import resources
from pipeline.errors import InputError, RowReject
from pipeline.sources import files, hub, remote, rows
from pipeline.sources.files import Location, SourceFile
from pipeline.sources.row import Adapter
from pipeline.sources.text import shown
from pipeline.storage.filesystems import is_url

Warn = Callable[[str], None]
_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")


@dataclass(frozen=True, slots=True)
class ResolvedSource:
    """What will be read. `location` is a path, URL or Hub id; `revision` is the Hub's commit, None for files.

    `split` is the one that was asked for or is read, "all" when every file is read whatever split its name tells.
    A mix has `parts`, as many `weights`, and the names and places of its parts with commas.
    """

    adapter: str
    location: str
    resolved: Literal["hub", "file", "bundled-sample", "mix"]
    revision: str | None
    split: str
    licence: str
    digest: str
    files: tuple[SourceFile, ...] = ()
    parts: tuple[ResolvedSource, ...] = ()
    weights: tuple[float, ...] = ()
    seed: int = 0


class Record(NamedTuple):
    """One row as it lies in the source, or why there is none. `source_row` counts all rows from 0, bad ones too.

    `source` is the adapter's name; of a name that occurs again in a mix, with its number: jsonl, jsonl-2.
    """

    source_row: int
    where: str
    split: str
    value: dict[str, Any] | RowReject
    source: str


def resolve(
    name: str, input: str | None, *, split: str | None, revision: str | None, require_full: bool, warn: Warn
) -> ResolvedSource:
    """Find the data of one source and pin it. InputError says in one line what is missing and what to do.

    An input that exists is a file or folder; else it is a URL, a glob, or `owner/name[@revision]`, a Hub id. Only without
    an input does an unreachable Hub lead to the bundled sample (with a warning), and not even then with `require_full`.
    """
    from pipeline.sources import get

    adapter = get(name)
    if input is None:
        if adapter.hub_id is None:
            raise InputError(
                f"source {name!r} has no data set of its own; give a file, a folder or a Hub id with --input"
            )
        return _default(adapter, adapter.hub_id, split, revision, require_full, warn)
    if found := files.find_input(input, warn):
        if revision is not None:
            raise InputError(f"{shown(input)}: these are files; source.revision is for Hub data sets, leave it out")
        return _from_files(adapter, input, found, split, warn)
    named = _HUB_ID.fullmatch(input)
    if named and not files.is_data_name(input):
        hub_id, pinned = named.groups()
        if pinned and revision and pinned != revision:
            raise InputError(f"{shown(input)}: source.revision says {revision!r}; give one of the two")
        try:
            return _from_hub(adapter, hub_id, split, pinned or revision)
        except hub.HubUnreachable as error:
            raise InputError(
                f"{shown(input)}: no such file or folder, and the Hub can't be asked for a data set of that name "
                f"({error}); check the path, or try again online"
            ) from error
    raise InputError(
        f"{shown(input[:200])}: no such file or folder; --input takes a file, a folder, a glob, a URL or a Hub id (owner/name)"
    )


def records(source: ResolvedSource, label: str, warn: Warn) -> Iterator[Record]:
    """Every row of one source in a fixed order, each once; a bad row is a Record whose value is a RowReject.

    InputError when the source as a whole can't be read further, or holds no row at all.
    """
    found = _hub_records(source, warn) if source.resolved == "hub" else _file_records(source, warn)
    nothing = True
    for index, (where, split, value) in enumerate(found):
        nothing = False
        yield Record(index, where, split, value, label)
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


def _from_files(
    adapter: Adapter, input: str, found: tuple[SourceFile, ...], split: str | None, warn: Warn
) -> ResolvedSource:
    place = shown(remote.RemoteFile(input, -1) if is_url(input) else input)
    try:
        kept = [file for file in found if split is None or (file.split or split) == split]
        if not kept:
            known = ", ".join(sorted({file.split for file in found if file.split}))
            raise InputError(f"{place}: no file of split {split!r}; the file names tell {known}")
        empty = [file.path for file in kept if files.size(file.path) == 0]
        if len(empty) == len(kept):
            raise InputError(f"{place}: empty, 0 bytes; expected {adapter.expected}, one JSON object a line")
        for file in empty:
            warn(f"{shown(file)}: empty, 0 bytes; it adds no row")
        # An empty file adds nothing to the digest either.
        pairs = [(file.split or split or "train", file.path) for file in kept if file.path not in empty]
        digest = _digest(adapter, pairs)
    except OSError as error:
        raise InputError(
            f"{shown(error.filename or place)}: can't be read ({error.strerror or shown(error)}); check its permissions"
        ) from error
    read = tuple(SourceFile(file, label) for label, file in pairs)
    labels = {label for label, _ in pairs}
    return ResolvedSource(
        adapter.name, place, "file", None, labels.pop() if len(labels) == 1 else "all", "unknown", digest, read
    )


def _file_records(source: ResolvedSource, warn: Warn) -> Iterator[tuple[str, str, dict[str, Any] | RowReject]]:
    for file in source.files:
        name = shown(file.path)
        for number, value in rows.rows(file.path, warn):
            yield f"{name}:{number}", file.split or "train", value


def _hub_records(source: ResolvedSource, warn: Warn) -> Iterator[tuple[str, str, dict[str, Any] | RowReject]]:
    from pipeline.sources import get

    sha, adapter = source.revision or "", get(source.adapter)
    found: Iterable[tuple[int, dict[str, Any] | RowReject]]
    if adapter.hub_file and (source.location, source.split) == (adapter.hub_id, adapter.hub_split):
        found = rows.rows(hub.file(source.location, sha, adapter.hub_file), warn)
    else:
        found = enumerate(hub.rows(source.location, sha, source.split), 1)
    for number, value in found:
        yield f"{source.location}@{sha[:12]}:{source.split}:{number}", source.split, value


def _digest(adapter: Adapter, pairs: Iterable[tuple[str, Location]]) -> str:
    """Of the files' content in reading order, and their splits. Names and places are left out: moving changes no row."""
    return _hash(adapter, ["files", *(part for split, path in pairs for part in (split, files.content(path)))])


def _hash(adapter: Adapter, parts: list[str]) -> str:
    whole = "\0".join([adapter.name, str(adapter.version), *parts])
    return hashlib.sha256(whole.encode(errors="surrogatepass")).hexdigest()


def _expected(source: ResolvedSource) -> str:
    from pipeline.sources import get

    return f"{get(source.adapter).expected}, one JSON object a line"
