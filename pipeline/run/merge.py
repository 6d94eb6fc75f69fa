"""Merge: finished data sets with the same labels as one, in the order of the arguments. No model is called.

A row that is published in several of them is published once, by the rule `keep`; the others become rejects of the stage
`merge`, reason `duplicate_id`, whose evidence names both places. The rejects of all data sets are kept as they are (a row may
be published by one and rejected by another), so in = published + rejected, where in is the sum of what they read.

The output folder itself can be among them: the others are then added to it, as a new publication with the rows of a merge of
all at once. Streams: memory holds some row groups, and 32 bytes per row for ids and their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import __version__, schema
from pipeline.dataset import manifest, reader
from pipeline.dataset.reader import PublishedFile
from pipeline.dataset.writer import write_ledgers, write_rows
from pipeline.errors import StorageError, UsageError
from pipeline.labels.loading import labels_tokenizer
from pipeline.run import merged
from pipeline.run import publish as publication
from pipeline.schema import digest
from pipeline.storage import stage_files
from pipeline.storage.location import journal_of
from pipeline.storage.lock import run_lock
from pipeline.storage.stage_files import Reject

Keep = Literal["first", "last"]
Numbers = npt.NDArray[np.int64]
Advance = Callable[[int], None]
Warn = Callable[[str], None]
_CARRIED = [name for name in schema.REJECTED.names if name in schema.PUBLISHED.names]


@dataclass(frozen=True, slots=True)
class MergeInput:
    """A data set to be merged. parts: its entry in the new manifest's lineage; of the one added to, its parts' entries."""

    root: Path
    content: dict[str, Any]
    files: tuple[PublishedFile, ...]
    parts: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class DuplicateResolution:
    """published: for each row of all data sets, the number of the row that is published with its id. Shape (rows,), int64."""

    published: Numbers

    def duplicates(self, rows: range) -> Numbers:
        """Which of these rows are published as another row, counted from the first of them."""
        return np.flatnonzero(self.published[rows.start : rows.stop] != np.arange(rows.start, rows.stop))


def merge(
    roots: Sequence[Path], out: Path, keep: Keep | None = None, *, advance: Advance, warn: Warn
) -> dict[str, Any]:
    """Write the data sets of `roots` as one to `out`; returns its manifest. An `out` that holds it already is left as it is.

    keep: which of several rows with the same id is published, that of the first or of the last data set; None: as `out` was
    merged before, else the first.
    Raises InputError for a folder without a data set, StorageError for a damaged one, UsageError for data sets that don't go
    together and for an `out` that can't be used.
    """
    current = _check_out(roots, out)
    inputs = _distinct([_open(root, out) for root in roots], out, warn)
    merged.check_same([(data.root, data.content) for data in inputs])
    before = current["lineage"][-1] if current else None
    keep = _rule(keep, before, out if any(_same(data.root, out) for data in inputs) else None)
    parts = [part for data in inputs for part in data.parts]
    _check_known(before, parts, out)
    size = int(inputs[0].content["settings"]["output"]["rows_per_file"])
    run_digest = digest("merge", [p["manifest"] for p in parts], keep, size, schema.SCHEMA_VERSION, __version__)
    with run_lock(out, warn):
        if current != _manifest(out):
            raise StorageError(f"{out}: was published again meanwhile; run the same command again")
        done = publication.find_current(out, run_digest, warn)
        return done or _write(inputs, parts, out, keep, size, run_digest, advance)


def _write(
    inputs: list[MergeInput],
    parts: list[dict[str, Any]],
    out: Path,
    keep: Keep,
    size: int,
    run_digest: str,
    advance: Advance,
) -> dict[str, Any]:
    resolution = _resolve_duplicates(inputs, keep)
    metadata = publication.file_metadata(inputs[0].content["labels"], run_digest)
    kept = int(np.count_nonzero(resolution.published == np.arange(len(resolution.published))))
    entries = write_rows(out, _kept(inputs, resolution, advance), kept, size, metadata)
    stages = list(dict.fromkeys([*schema.STAGES, *(s["stage"] for d in inputs for s in d.content["funnel"]), "merge"]))
    ledgers = {stage: _ledger(inputs, stage, resolution, parts) for stage in stages}
    ledger, reasons = write_ledgers(out, ledgers)
    ends = np.cumsum([part["published"] for part in parts])
    counts = np.bincount(np.searchsorted(ends, np.unique(resolution.published), "right"), minlength=len(parts)).tolist()
    lineage = [part | {"published": count} for part, count in zip(parts, counts, strict=True)]
    content = merged.content([data.content for data in inputs], reasons, entries, ledger)
    content["settings"]["output"]["rows_per_file"] = size
    content |= {"run_digest": run_digest, "lineage": [{"merged": lineage, "keep": keep}]}
    tokenizer, note = labels_tokenizer(content, None)
    return publication.finish(out, content, tokenizer, note)


def _manifest(out: Path) -> dict[str, Any] | None:
    with suppress(StorageError):
        return manifest.load(out)
    return None


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _check_out(roots: Sequence[Path], out: Path) -> dict[str, Any] | None:
    """The merged data set that `out` holds, if any. Raises UsageError when it holds something else, or lies in a data set."""
    for root in roots:
        if not _same(root, out) and out.resolve().is_relative_to(root.resolve()):
            raise UsageError(f"--out {out}: lies in the folder of {root}; name one outside it")
    there = _manifest(out)
    if (there and publication.made_by(there) != "merge") or journal_of(out).exists():
        raise UsageError(f"--out {out}: holds a data set that no merge wrote; name another folder")
    return there


def _check_known(before: dict[str, Any] | None, parts: list[dict[str, Any]], out: Path) -> None:
    """A merge may replace one of older publications of the same folders, not one of other data sets."""
    named = {part["path"] for part in parts} | {part["manifest"] for part in parts}
    gone = [p for p in (before or {}).get("merged", []) if not {p["path"], p["manifest"]} & named]
    if gone:
        raise UsageError(
            f"--out {out}: holds a merge of other data sets, {gone[0]['path']} among them; to add to it, name {out} itself "
            "as the first data set, or name another folder"
        )


def _rule(keep: Keep | None, before: dict[str, Any] | None, added_to: Path | None) -> Keep:
    if before and added_to and keep not in (None, before["keep"]):
        raise UsageError(
            f"--keep {keep}: {added_to} was merged with --keep {before['keep']}, and which rows that dropped can't be undone; "
            "merge its data sets again into another folder"
        )
    return keep or (before["keep"] if before else "first")


def _open(root: Path, out: Path) -> MergeInput:
    content = reader.read_manifest(root)
    files = reader.check_files(root, content, "hashes")
    for entry in manifest.file_entries(root, content, "rejected_files"):
        reader.check_bytes(entry)
    if _same(root, out):
        return MergeInput(root, content, files, content["lineage"][-1]["merged"])
    named = {"path": str(root), "manifest": manifest.digest_of(content)}
    named |= {name: content[name] for name in ("version", "run_digest", "rows", "thresholds")}
    named |= {"published": content["rows"]["published"]}
    named |= {"lineage": content["lineage"]} if "lineage" in content else {}
    return MergeInput(root, content, files, [named])


def _distinct(inputs: list[MergeInput], out: Path, warn: Warn) -> list[MergeInput]:
    """Without those that are there twice. Raises UsageError when only one is left."""
    # What is merged already comes first, else it would count as new.
    added_to = [data for data in inputs if _same(data.root, out)][:1]
    seen = {part["manifest"] for data in added_to for part in data.parts}
    distinct = []
    for data in inputs:
        if data not in added_to and seen.issuperset(part["manifest"] for part in data.parts):
            warn(f"{data.root}: is merged already, so nothing of it is added")
            continue
        seen |= {part["manifest"] for part in data.parts}
        distinct.append(data)
    if sum(len(data.parts) for data in distinct) < 2:
        raise UsageError("merging needs at least two different data sets")
    return distinct


def _resolve_duplicates(inputs: list[MergeInput], keep: Keep) -> DuplicateResolution:
    ids = np.concatenate([_ids(file) for data in inputs for file in data.files])
    order = np.argsort(ids, kind="stable")
    begins = np.flatnonzero(np.diff(ids[order], prepend=~ids[order[:1]]))
    ends = np.append(begins[1:], len(ids))[: len(begins)] - 1
    published = np.empty(len(ids), np.int64)
    published[order] = np.repeat(order[begins if keep == "first" else ends], ends - begins + 1)
    return DuplicateResolution(published)


def _ids(file: PublishedFile) -> npt.NDArray[np.uint64]:
    """The ids of a file's rows, which are 16 hex digits, as numbers."""
    batches = reader.batches(file.path, ["id"])
    try:
        parts = [np.array([int(name, 16) for name in batch["id"].to_pylist()], np.uint64) for batch in batches]
    except (ValueError, TypeError, OverflowError) as error:
        raise reader.damaged(file.path, f"column id: {error}") from None
    return np.concatenate([np.empty(0, np.uint64), *parts])


def _tables(
    inputs: list[MergeInput],
    resolution: DuplicateResolution,
    columns: Sequence[str] | None = None,
    *,
    only_duplicates: bool = False,
) -> Iterator[tuple[pa.Table, Numbers, int]]:
    """Published rows in order: a table, which of its rows are duplicates of others, and the number of its first row.

    only_duplicates: leave out files without duplicates.
    """
    number = 0
    for file in (file for data in inputs for file in data.files):
        end = number + file.rows
        if not only_duplicates or len(resolution.duplicates(range(number, end))):
            for batch in reader.batches(file.path, columns):
                lost = resolution.duplicates(range(number, number + batch.num_rows))
                yield pa.Table.from_batches([batch]), lost, number
                number += batch.num_rows
        number = end


def _kept(inputs: list[MergeInput], resolution: DuplicateResolution, advance: Advance) -> Iterator[pa.Table]:
    for table, lost, _ in _tables(inputs, resolution):
        yield table.take(pa.array(np.delete(np.arange(table.num_rows), lost))) if len(lost) else table
        advance(table.num_rows)


def _ledger(
    inputs: list[MergeInput], stage: str, resolution: DuplicateResolution, parts: list[dict[str, Any]]
) -> Iterator[pa.Table]:
    """The rejects of a stage, of all data sets in order; after those of `merge` the duplicates of this merge."""
    for data in inputs:
        for entry in manifest.file_entries(data.root, data.content, "rejected_files"):
            if entry.path.stem.split("-")[0] == stage:
                yield from (pa.Table.from_batches([batch]) for batch in reader.batches(entry.path))
    if stage == "merge":
        yield from _duplicates(inputs, resolution, parts)


def _duplicates(
    inputs: list[MergeInput], resolution: DuplicateResolution, parts: list[dict[str, Any]]
) -> Iterator[pa.Table]:
    ends = np.cumsum([part["published"] for part in parts])

    def named(rows: Numbers) -> list[dict[str, str]]:
        places = (parts[number] for number in np.searchsorted(ends, rows, "right").tolist())
        return [{"data_set": part["path"], "manifest": part["manifest"]} for part in places]

    for table, lost, first in _tables(inputs, resolution, _CARRIED, only_duplicates=True):
        places = zip(lost.tolist(), named(lost + first), named(resolution.published[lost + first]), strict=True)
        rejects = [Reject(i, "duplicate_id", {"published": kept, "rejected": own}) for i, own, kept in places]
        yield stage_files.reject_table("merge", table, rejects)
