"""What the name and the input of one source mean, and every row of it.

`resolve_one` decides what to read; `records_of` reads it. Between them stands a `ResolvedSource`, whose digest covers all
that determines the rows: a file's bytes, or the Hub's commit. Several sources in one run: `mixing.py`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pipeline import resources
from pipeline.errors import InputError
from pipeline.sources import files, hub, rows
from pipeline.sources.adapters import get
from pipeline.sources.files import Location, SourceFile, Warn
from pipeline.sources.remote import RemoteFile
from pipeline.sources.row import Adapter, RawRow
from pipeline.storage.filesystems import is_url
from pipeline.text import shown

_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")


@dataclass(frozen=True, slots=True)
class ResolvedSource:
    """What will be read. `location` is a path, URL or Hub id; `revision` is the Hub's commit, None for files.

    `split` is the one that was requested or is read, "all" when every file is read whatever split its name tells.
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
    value: RawRow
    source: str


def resolve_one(
    name: str, input: str | None, split: str | None, revision: str | None, require_full: bool, warn: Warn
) -> ResolvedSource:
    """Find the data of one source and pin it. InputError says in one line what is missing and what to do.

    An input that exists is a file or folder; else it is a URL, a glob, or `owner/name[@revision]`, a Hub id. Only without
    an input does an unreachable Hub lead to the bundled sample (with a warning), and not even then with `require_full`.
    """
    adapter = get(name)
    if input is None:
        if adapter.hub_id is None:
            raise InputError(
                f"source {name!r} has no data set of its own; give a file, a folder or a Hub id with --input"
            )
        try:
            return _from_hub(adapter, adapter.hub_id, split, revision)
        except (hub.HubUnreachable, InputError) as error:
            why = f"the Hub did not give {adapter.hub_id} ({error})"
            return _from_sample(adapter, why, revision, require_full, warn)
    if inputs := files.find_input(input, warn):
        if revision is not None:
            raise InputError(f"{shown(input)}: these are files; source.revision is for Hub data sets, leave it out")
        return _from_files(adapter, input, inputs, split, warn)
    named = _HUB_ID.fullmatch(input)
    if not named or files.is_data_name(input):
        raise InputError(
            f"{shown(input[:200])}: no such file or folder; "
            "--input takes a file, a folder, a glob, a URL or a Hub id (owner/name)"
        )
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


def records_of(source: ResolvedSource, label: str, warn: Warn) -> Iterator[Record]:
    """Every row of one source in a fixed order, each once; a bad row is a Record whose value is a RowReject.

    InputError when the source as a whole can't be read further, or holds no row at all.
    """
    index = -1
    for index, (where, split, value) in enumerate(_located_rows(source, warn)):
        yield Record(index, where, split, value, label)
    if index < 0:
        expected = get(source.adapter).expected
        raise InputError(f"{source.location}: no rows in it; expected {expected}, one JSON object a line")


def _located_rows(source: ResolvedSource, warn: Warn) -> Iterator[tuple[str, str, RawRow]]:
    """(where, split, row) for every row of a source."""
    for file in source.files:
        for number, value in rows.rows(file.path, warn):
            yield f"{shown(file.path)}:{number}", file.split or "train", value
    if source.resolved != "hub":
        return
    sha, adapter = source.revision or "", get(source.adapter)
    numbered: Iterable[tuple[int, RawRow]]
    if adapter.hub_file and (source.location, source.split) == (adapter.hub_id, adapter.hub_split):
        # `datasets` would hold the whole of a JSON array, in eight times its size.
        numbered = rows.rows(RemoteFile(f"hf://datasets/{source.location}@{sha}/{adapter.hub_file}"), warn)
    else:
        numbered = enumerate(hub.rows(source.location, sha, source.split), 1)
    for number, value in numbered:
        yield f"{source.location}@{sha[:12]}:{source.split}:{number}", source.split, value


def _from_sample(adapter: Adapter, why: str, revision: str | None, require_full: bool, warn: Warn) -> ResolvedSource:
    """The sample that ships with the project, where nothing else is asked for."""
    sample = resources.folder("data") / f"{adapter.name}-sample.jsonl"
    if revision is not None:
        raise InputError(f"{why}, and the sample is no substitute for revision {revision!r}; try online")
    if require_full:
        raise InputError(f"{why}, and the full source is required; try online, or give a local copy with --input")
    if not sample.is_file():
        raise InputError(f"{why}, and no sample is installed; try online, or give a local copy with --input")
    warn(f"{why}; using the bundled sample {sample.name} instead (--require-full-source makes this an error)")
    file = SourceFile(sample, "sample")
    digest = _digest(adapter, _identity([("sample", sample)]))
    return ResolvedSource(adapter.name, sample.name, "bundled-sample", None, "sample", "Apache-2.0", digest, (file,))


def _from_hub(adapter: Adapter, hub_id: str, split: str | None, revision: str | None) -> ResolvedSource:
    sha, licence = hub.pin(hub_id, revision)
    own = hub_id == adapter.hub_id
    split = split or (adapter.hub_split if own else "train")
    licence = licence or (adapter.licence if own else "unknown")
    digest = _digest(adapter, ["hub", hub_id, sha, split])
    return ResolvedSource(adapter.name, hub_id, "hub", sha, split, licence, digest)


def _from_files(
    adapter: Adapter, input: str, inputs: tuple[SourceFile, ...], split: str | None, warn: Warn
) -> ResolvedSource:
    place = shown(RemoteFile(input) if is_url(input) else input)
    kept = [file for file in inputs if split is None or file.split in (None, split)]
    if not kept:
        known = ", ".join(sorted({file.split for file in inputs if file.split}))
        raise InputError(f"{place}: no file of split {split!r}; the file names tell {known}")
    empty = [file.path for file in kept if files.size(file.path) == 0]
    if len(empty) == len(kept):
        raise InputError(f"{place}: empty, 0 bytes; expected {adapter.expected}, one JSON object a line")
    for path in empty:
        warn(f"{shown(path)}: empty, 0 bytes; it adds no row")
    read = [(file.split or split or "train", file.path) for file in kept if file.path not in empty]
    splits = {label for label, _ in read}
    return ResolvedSource(
        adapter=adapter.name,
        location=place,
        resolved="file",
        revision=None,
        split=splits.pop() if len(splits) == 1 else "all",
        licence="unknown",
        digest=_digest(adapter, _identity(read)),
        files=tuple(SourceFile(path, label) for label, path in read),
    )


def _identity(read: list[tuple[str, Location]]) -> list[str]:
    """The files' splits and content in reading order. Names and places are left out: moving a file changes no row."""
    return ["files", *(part for split, path in read for part in (split, files.content(path)))]


def _digest(adapter: Adapter, parts: list[str]) -> str:
    whole = "\0".join([adapter.name, str(adapter.version), *parts])
    return hashlib.sha256(whole.encode(errors="surrogatepass")).hexdigest()
