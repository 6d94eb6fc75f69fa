"""Merge: finished data sets with the same labels as one, in the order of the arguments. No model is called.

A row that is published in several is published once, by the rule `keep`; the others become rejects of the stage `merge`,
reason `duplicate_id`. All rejects are kept (a row may be published by one and rejected by another), so in = published +
rejected, where in is the sum of what was read. The output folder can be among the data sets: the others are added to it, as
if all were merged at once. Streams: memory holds some row groups, and 60 bytes per row for ids and their order.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

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
from pipeline.storage.lock import run_lock
from pipeline.storage.stage_files import Reject

Keep = Literal["first", "last"]
Numbers = npt.NDArray[np.int64]
Advance = Callable[[int], None]
Warn = Callable[[str], None]
_CARRIED = [name for name in schema.REJECTED.names if name in schema.PUBLISHED.names]


class MergeInput(NamedTuple):
    """A data set to be merged. parts: its entry in the new manifest's lineage; of the one added to, its parts' entries."""

    root: Path
    content: dict[str, Any]
    files: tuple[PublishedFile, ...]
    parts: list[dict[str, Any]]

    @property
    def manifests(self) -> set[str]:
        return {part["manifest"] for part in self.parts}


def merge(
    roots: Sequence[Path], out: Path, keep: Keep | None = None, *, advance: Advance, warn: Warn
) -> dict[str, Any]:
    """Write the data sets of `roots` as one to `out`, unless it is there; returns its manifest.

    keep: of rows with the same id, publish that of the first or of the last data set; None: as `out` was merged before, else
    the first. Raises InputError (no data set), StorageError (damaged), UsageError (data sets or `out` that don't fit).
    """
    current = publication.check_out(out, [root for root in roots if not _same(root, out)], "merge")
    inputs = _distinct([_open(root, out) for root in roots], out, warn)
    merged.check_same([(data.root, data.content) for data in inputs])
    before = current["lineage"][-1] if current else None
    parts = [part for data in inputs for part in data.parts]
    if before:
        _check_known(before, parts, out)
        if any(_same(data.root, out) for data in inputs) and keep not in (None, before["keep"]):
            why = f"{out} was merged with --keep {before['keep']}, and which rows that dropped can't be undone"
            raise UsageError(f"--keep {keep}: {why}; merge its data sets again into another folder")
    keep = keep or (before["keep"] if before else "first")
    size = int(inputs[0].content["settings"]["output"]["rows_per_file"])
    run_digest = digest("merge", [p["manifest"] for p in parts], keep, size, schema.SCHEMA_VERSION, __version__)
    with run_lock(out, warn):
        if current != manifest.load_or_none(out):
            raise StorageError(f"{out}: was published again meanwhile; run the same command again")
        done = publication.find_current(out, run_digest, warn)
        return done or _write(inputs, out, keep, run_digest, advance)


def _write(inputs: list[MergeInput], out: Path, keep: Keep, run_digest: str, advance: Advance) -> dict[str, Any]:
    parts = [part for data in inputs for part in data.parts]
    size = int(inputs[0].content["settings"]["output"]["rows_per_file"])
    published = _resolve_duplicates(inputs, keep)
    kept = np.unique(published)
    metadata = publication.file_metadata(inputs[0].content["labels"], run_digest)
    entries = write_rows(out, _kept(inputs, published, advance), len(kept), size, metadata)
    stages = list(dict.fromkeys([*schema.STAGES, *(s["stage"] for d in inputs for s in d.content["funnel"]), "merge"]))
    ledger, reasons = write_ledgers(out, {stage: _ledger(inputs, stage, published, parts) for stage in stages})
    counts = np.bincount(_part_of(kept, parts), minlength=len(parts)).tolist()
    lineage = [part | {"published": count} for part, count in zip(parts, counts, strict=True)]
    content = merged.content([data.content for data in inputs], reasons, entries, ledger)
    content["settings"]["output"]["rows_per_file"] = size
    content |= {"run_digest": run_digest, "lineage": [{"merged": lineage, "keep": keep}]}
    tokenizer, note = labels_tokenizer(content, None)
    return publication.finish(out, content, tokenizer, note)


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _check_known(before: dict[str, Any], parts: list[dict[str, Any]], out: Path) -> None:
    """A merge may replace one of older publications of the same folders, not one of other data sets."""
    named = {part["path"] for part in parts} | {part["manifest"] for part in parts}
    for part in before["merged"]:
        if not {part["path"], part["manifest"]} & named:
            hint = f"to add to it, name {out} itself as the first data set, or name another folder"
            raise UsageError(f"--out {out}: holds a merge of other data sets, {part['path']} among them; {hint}")


def _open(root: Path, out: Path) -> MergeInput:
    content = reader.read_manifest(root)
    files = reader.check_files(root, content, "hashes")
    for entry in manifest.file_entries(root, content, "rejected_files"):
        if reason := reader.difference(entry):
            raise reader.damaged(entry.path, reason)
    if _same(root, out):
        return MergeInput(root, content, files, content["lineage"][-1]["merged"])
    part = {"path": str(root), "manifest": manifest.digest_of(content)}
    part |= {name: content[name] for name in ("version", "run_digest", "rows", "thresholds")}
    part["published"] = content["rows"]["published"]
    part |= {"lineage": content["lineage"]} if "lineage" in content else {}
    return MergeInput(root, content, files, [part])


def _distinct(inputs: list[MergeInput], out: Path, warn: Warn) -> list[MergeInput]:
    """Without those that are there, or merged already, twice. Raises UsageError when only one is left."""
    added_to = [data for data in inputs if _same(data.root, out)][:1]
    seen = {name for data in added_to for name in data.manifests}
    distinct = []
    for data in inputs:
        if data not in added_to and data.manifests <= seen:
            warn(f"{data.root}: is merged already, so nothing of it is added")
            continue
        seen |= data.manifests
        distinct.append(data)
    if sum(len(data.parts) for data in distinct) < 2:
        raise UsageError("merging needs at least two different data sets")
    return distinct


def _resolve_duplicates(inputs: list[MergeInput], keep: Keep) -> Numbers:
    """For each row of all data sets, the number of the row that is published with its id. Shape (rows,)."""
    ids = np.concatenate([_ids(file) for data in inputs for file in data.files])
    if keep == "last":
        _, kept, inverse = np.unique(ids[::-1], return_index=True, return_inverse=True)
        return (len(ids) - 1 - kept)[inverse[::-1]]
    _, kept, inverse = np.unique(ids, return_index=True, return_inverse=True)
    return kept[inverse]


def _ids(file: PublishedFile) -> npt.NDArray[np.uint64]:
    """The ids of a file's rows, which are 16 hex digits, as numbers."""
    try:
        names = (name for batch in reader.batches(file.path, ["id"]) for name in batch["id"].to_pylist())
        return np.fromiter((int(name, 16) for name in names), np.uint64)
    except (ValueError, TypeError, OverflowError) as error:
        raise reader.damaged(file.path, f"column id: {error}") from None


def _part_of(rows: Numbers, parts: list[dict[str, Any]]) -> Numbers:
    """The index of the part that each of these rows, numbered over all data sets, comes from."""
    return np.searchsorted(np.cumsum([part["published"] for part in parts]), rows, "right")


def _tables(
    inputs: list[MergeInput], published: Numbers, duplicates_of: Sequence[str] | None = None
) -> Iterator[tuple[pa.Table, Numbers]]:
    """Published rows in order, with their numbers. duplicates_of: only these columns, only of files with duplicates."""
    numbers = np.arange(len(published))
    for file in (file for data in inputs for file in data.files):
        own, numbers = numbers[: file.rows], numbers[file.rows :]
        if duplicates_of is None or (published[own] != own).any():
            for batch in reader.batches(file.path, duplicates_of):
                table = pa.Table.from_batches([batch])
                yield table if duplicates_of else schema.complete(table), own[: batch.num_rows]
                own = own[batch.num_rows :]


def _kept(inputs: list[MergeInput], published: Numbers, advance: Advance) -> Iterator[pa.Table]:
    for table, numbers in _tables(inputs, published):
        yield table.filter(pa.array(published[numbers] == numbers))
        advance(table.num_rows)


def _ledger(
    inputs: list[MergeInput], stage: str, published: Numbers, parts: list[dict[str, Any]]
) -> Iterator[pa.Table]:
    """The rejects of a stage, of all data sets in order; after those of `merge` the duplicates of this merge."""
    for data in inputs:
        for entry in manifest.file_entries(data.root, data.content, "rejected_files"):
            if entry.path.stem.split("-")[0] == stage:
                yield from (pa.Table.from_batches([batch]) for batch in reader.batches(entry.path))
    if stage != "merge":
        return
    names = [{"data_set": part["path"], "manifest": part["manifest"]} for part in parts]
    for table, numbers in _tables(inputs, published, _CARRIED):
        lost = np.flatnonzero(published[numbers] != numbers)
        kept, rejected = (_part_of(rows, parts) for rows in (published[numbers[lost]], numbers[lost]))
        rejects = [
            Reject(index, "duplicate_id", {"published": names[one], "rejected": names[other]})
            for index, one, other in zip(lost.tolist(), kept, rejected, strict=True)
        ]
        yield stage_files.reject_table("merge", table, rejects)
