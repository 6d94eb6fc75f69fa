"""What the name and the input of one source mean, and every row of it. Several sources in one run: `mixing.py`."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from pipeline import resources
from pipeline.config.addresses import reveal
from pipeline.config.settings import SourceSettings
from pipeline.errors import InputError
from pipeline.sources import files, rows
from pipeline.sources.adapters import get
from pipeline.sources.files import Files, RemoteFile, SourceFile, Warn
from pipeline.sources.row import Adapter, RawRow
from pipeline.storage.remote import is_url
from pipeline.text import describe_error, shown

HUB_TIMEOUT_S = 5.0
_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")


@dataclass(frozen=True, slots=True)
class ResolvedSource:
    """What will be read; `digest` covers all that determines the rows: the files' bytes, or the Hub's commit.

    location: a path, URL or Hub id; revision: the Hub's commit, None for files; split: "all" when files of several are read.
    A mix has `parts` and as many `weights`.
    """

    adapter: str
    location: str
    resolved: Literal["hub", "file", "bundled", "bundled-sample", "mix"]
    revision: str | None
    split: str
    licence: str
    digest: str
    files: Files = ()
    parts: "tuple[ResolvedSource, ...]" = ()
    weights: tuple[float, ...] = ()
    seed: int = 0


class Record(NamedTuple):
    """One row of a source; `source_row` counts bad ones too. source: the adapter's name, in a mix also jsonl-2."""

    source_row: int
    where: str
    split: str
    value: RawRow
    source: str


def resolve_one(settings: SourceSettings, warn: Warn) -> ResolvedSource:
    """Find the data of one source and pin it. InputError says in one line what is missing and what to do.

    Only without an input does an unreachable Hub lead to the bundled sample, and not even then with `require_full`.
    """
    adapter, input, revision = get(settings.name.strip()), settings.input, settings.revision
    if adapter.bundled:
        if input or revision or settings.split:
            why = "ships with the program, in one split"
            raise InputError(f"source {adapter.name!r} {why}: leave --input, source.revision and source.split out")
        return _bundled(adapter, resources.folder("data") / adapter.bundled, "bundled", "train")
    if input is None:
        if adapter.hub_id is None:
            raise InputError(f"source {adapter.name!r} has no data of its own; give --input a file, folder or Hub id")
        try:
            return _from_hub(adapter, adapter.hub_id, settings.split, revision)
        except (ConnectionError, InputError) as error:
            return _from_sample(adapter, settings, f"the Hub did not give {adapter.hub_id} ({error})", warn)
    if inputs := files.find_input(reveal(input), warn):
        if revision is not None:
            raise InputError(f"{shown(input)}: these are files; source.revision is for Hub data sets, leave it out")
        if (folder := Path(input).expanduser()).is_dir():
            likely = (adapter.hub_split, adapter.hub_config)
            inputs = files.one_split(folder, inputs, settings.split, likely, warn)
        return _from_files(adapter, input, inputs, settings.split, warn)
    nothing = f"{shown(input[:200])}: no such file or folder"
    named = _HUB_ID.fullmatch(input)
    if not named or files.is_data_name(input):
        raise InputError(f"{nothing}; --input takes a file, a folder, a glob, a URL or a Hub id (owner/name)")
    hub_id, pinned = named.groups()
    if pinned and revision and pinned != revision:
        raise InputError(f"{shown(input)}: source.revision says {revision!r}; give one of the two")
    try:
        return _from_hub(adapter, hub_id, settings.split, pinned or revision)
    except ConnectionError as error:
        raise InputError(f"{nothing}, nor an answer from the Hub ({error}); check the path, or try online") from error


def records_of(source: ResolvedSource, label: str, warn: Warn) -> Iterator[Record]:
    """Every row of one source in a fixed order, bad ones as RowReject. InputError without a row or when unreadable."""
    adapter, sha = get(source.adapter), source.revision or ""
    streams = [(shown(file.path), file.split or "train", rows.rows(file.path, warn)) for file in source.files]
    if source.resolved == "hub":
        if adapter.hub_file and (source.location, source.split) == (adapter.hub_id, adapter.hub_split):
            # `datasets` would hold the whole of a JSON array, in eight times its size.
            numbered = rows.rows(RemoteFile(f"hf://datasets/{source.location}@{sha}/{adapter.hub_file}"), warn)
        else:
            config = adapter.hub_config if source.location == adapter.hub_id else None
            numbered = _hub_rows(source.location, config, sha, source.split)
        streams.append((f"{source.location}@{sha[:12]}:{source.split}", source.split, numbered))
    count = 0
    for place, split, numbered in streams:
        for number, value in numbered:
            yield Record(count, f"{place}:{number}", split, value, label)
            count += 1
    if not count:
        raise InputError(f"{source.location}: no rows in it; expected {adapter.expected}, one JSON object a line")


def _from_sample(adapter: Adapter, settings: SourceSettings, why: str, warn: Warn) -> ResolvedSource:
    """The sample that ships with the project, unless more is requested."""
    sample = resources.folder("data") / f"{adapter.name}-sample.jsonl"
    if settings.revision is not None:
        raise InputError(f"{why}, and the sample is no substitute for revision {settings.revision!r}; try online")
    if settings.require_full:
        raise InputError(f"{why}, and the full source is required; try online, or give a local copy with --input")
    if not sample.is_file():
        raise InputError(f"{why}, and no sample is installed; try online, or give a local copy with --input")
    warn(f"{why}; using the bundled sample {sample.name} instead (--require-full-source makes this an error)")
    return _bundled(adapter, sample, "bundled-sample", "sample")


def _bundled(adapter: Adapter, file: Path, how: Literal["bundled", "bundled-sample"], split: str) -> ResolvedSource:
    """A file that ships with the program."""
    read = (SourceFile(file, split),)
    return ResolvedSource(adapter.name, file.name, how, None, split, "Apache-2.0", _file_digest(adapter, read), read)


def _from_hub(adapter: Adapter, hub_id: str, split: str | None, revision: str | None) -> ResolvedSource:
    sha, licence = _pin(hub_id, revision)
    own_split, own_licence = (adapter.hub_split, adapter.licence) if hub_id == adapter.hub_id else ("train", "unknown")
    split = split or own_split
    digest = _digest(adapter, "hub", hub_id, sha, split)
    return ResolvedSource(adapter.name, hub_id, "hub", sha, split, licence or own_licence, digest)


def _pin(hub_id: str, revision: str | None) -> tuple[str, str | None]:
    """The commit that the revision (or the default branch) is at, and the card's licence. ConnectionError or InputError."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        if os.environ.get(name, "").strip().upper() in {"1", "ON", "YES", "TRUE"}:
            raise ConnectionError(f"{name} is set")
    from huggingface_hub import HfApi
    from huggingface_hub import errors as hub

    try:
        info = HfApi().dataset_info(hub_id, revision=revision, timeout=HUB_TIMEOUT_S)
    except hub.RevisionNotFoundError as error:
        raise InputError(f"Hub data set {hub_id}: no revision {revision!r}; give its commit, branch or tag") from error
    except hub.GatedRepoError as error:
        raise InputError(f"Hub data set {hub_id} is gated; accept its terms at its page, then set HF_TOKEN") from error
    except hub.RepositoryNotFoundError as error:
        raise InputError(f"no Hub data set {hub_id} (if private: set HF_TOKEN), nor a file of that name") from error
    except hub.HFValidationError as error:
        raise InputError(f"{hub_id!r} is neither a file, a folder nor a Hub id (owner/name)") from error
    except Exception as error:  # the HTTP library's own errors; which library that is differs between versions
        raise ConnectionError(describe_error(error)) from error
    if not info.sha:
        raise ConnectionError("its answer names no commit")
    licence = info.card_data.get("license") if info.card_data else None
    return info.sha, licence if isinstance(licence, str) else None


def _hub_rows(hub_id: str, config: str | None, sha: str, split: str) -> Iterator[tuple[int, RawRow]]:
    """(number from 1, row) of one split of one commit, in its order; InputError says how many came before a failure."""
    import datasets

    count = 0
    try:
        read = datasets.load_dataset(hub_id, config, split=split, revision=sha, streaming=True)
        for count, row in enumerate(read, 1):
            yield count, row
    except Exception as error:
        where = f"Hub data set {hub_id} at {sha[:12]}, split {split!r}"
        hint = "Check the split and try again, or download the files and give their folder as --input"
        raise InputError(f"{where}: {describe_error(error)}; {count} rows were read before that. {hint}") from error


def _from_files(adapter: Adapter, input: str, inputs: Files, split: str | None, warn: Warn) -> ResolvedSource:
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
    read = tuple(SourceFile(file.path, file.split or split or "train") for file in kept if file.path not in empty)
    splits = {file.split or "" for file in read}
    label = splits.pop() if len(splits) == 1 else "all"
    return ResolvedSource(adapter.name, place, "file", None, label, "unknown", _file_digest(adapter, read), read)


def _file_digest(adapter: Adapter, read: Files) -> str:
    """Of the files' splits and content in reading order, without names and places: moving a file changes no row."""
    return _digest(adapter, "files", *(part for file in read for part in (file.split or "", files.content(file.path))))


def _digest(adapter: Adapter, *parts: str) -> str:
    whole = "\0".join([adapter.name, str(adapter.version), *parts])
    return hashlib.sha256(whole.encode(errors="surrogatepass")).hexdigest()
