"""Merge: finished data sets with the same labels as one, in the order in which they are given. No model is asked.

A row that is published in several of them is published once, by the rule `keep`; the others become rejects of the stage
`merge`, reason `duplicate_id`, whose evidence names both places. The rejects of all data sets are kept as they are (a row may
be published by one and rejected by another), so in = published + rejected, where in is the sum of what they read.

The merged data set itself can be among those given: the others are then added to it, as a new publication with the rows of
a merge of all at once. Streams: memory holds some row groups, and 32 bytes a row for ids and their order.
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
from pipeline.dataset.verify_files import entries_of
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
class Given:
    """A data set to be merged. parts: what the manifest will say of it, or of each part of the one that is added to."""

    root: Path
    content: dict[str, Any]
    files: tuple[PublishedFile, ...]
    parts: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Winners:
    """of: for each row of all data sets, in order, the row that is published for its id: its own number, or another's."""

    of: Numbers

    def lost(self, rows: range) -> Numbers:
        """Which of these rows are duplicates of others, counted from the first of them."""
        return np.flatnonzero(self.of[rows.start : rows.stop] != np.arange(rows.start, rows.stop))


def merge(
    roots: Sequence[Path], out: Path, keep: Keep | None = None, *, advance: Advance, warn: Warn
) -> dict[str, Any]:
    """Write the data sets of `roots` as one to `out`; returns its manifest. An `out` that holds it already is left as it is.

    keep: which of several rows with the same id is published, that of the first or of the last data set given; None is what
    `out` was made with, or else the first.
    Raises InputError for a folder without a data set, StorageError for a damaged one, UsageError for data sets that don't go
    together and for an `out` that can't be used.
    """
    standing = _check_out(roots, out)
    given = _distinct([_open(root, out) for root in roots], out, warn)
    merged.check_same([(data.root, data.content) for data in given])
    before = standing["lineage"][-1] if standing else None
    keep = _rule(keep, before, out if any(_same(data.root, out) for data in given) else None)
    parts = [part for data in given for part in data.parts]
    _check_known(before, parts, out)
    size = int(given[0].content["settings"]["output"]["rows_per_file"])
    run_digest = digest("merge", [p["manifest"] for p in parts], keep, size, schema.SCHEMA_VERSION, __version__)
    with run_lock(out, warn):
        if standing != _manifest(out):
            raise StorageError(f"{out}: was published anew meanwhile; run the same command again")
        done = publication.standing(out, run_digest, warn)
        return done or _write(given, parts, out, keep, size, run_digest, advance)


def _write(
    given: list[Given], parts: list[dict[str, Any]], out: Path, keep: Keep, size: int, run_digest: str, advance: Advance
) -> dict[str, Any]:
    winners = _winners(given, keep)
    metadata = publication.file_metadata(given[0].content["labels"], run_digest)
    kept = int(np.count_nonzero(winners.of == np.arange(len(winners.of))))
    entries = write_rows(out, _kept(given, winners, advance), kept, size, metadata)
    stages = list(dict.fromkeys([*schema.STAGES, *(s["stage"] for d in given for s in d.content["funnel"]), "merge"]))
    ledgers = {stage: _ledger(given, stage, winners, parts) for stage in stages}
    ledger, reasons = write_ledgers(out, ledgers)
    ends = np.cumsum([part["published"] for part in parts])
    counts = np.bincount(np.searchsorted(ends, np.unique(winners.of), "right"), minlength=len(parts)).tolist()
    lineage = [part | {"published": count} for part, count in zip(parts, counts, strict=True)]
    content = merged.content([data.content for data in given], reasons, entries, ledger)
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
        raise UsageError(f"--out {out}: holds a data set that was not made by merging; name another folder")
    return there


def _check_known(before: dict[str, Any] | None, parts: list[dict[str, Any]], out: Path) -> None:
    """A merge may take the place of one of older publications of the same folders, not of one of other data sets."""
    given = {part["path"] for part in parts} | {part["manifest"] for part in parts}
    gone = [p for p in (before or {}).get("merged", []) if not {p["path"], p["manifest"]} & given]
    if gone:
        raise UsageError(
            f"--out {out}: holds a merge of other data sets, {gone[0]['path']} among them; to add to it, give {out} itself "
            "as the first data set, or name another folder"
        )


def _rule(keep: Keep | None, before: dict[str, Any] | None, added_to: Path | None) -> Keep:
    if before and added_to and keep not in (None, before["keep"]):
        raise UsageError(
            f"--keep {keep}: {added_to} was merged with --keep {before['keep']}, and which rows that dropped can't be undone; "
            "merge its data sets anew into another folder"
        )
    return keep or (before["keep"] if before else "first")


def _open(root: Path, out: Path) -> Given:
    content = reader.read_manifest(root)
    files = reader.check_files(root, content, "hashes")
    for entry in entries_of(root, content, "rejected_files"):
        reader.check_bytes(entry.path, entry.bytes, entry.sha256)
    if _same(root, out):
        return Given(root, content, files, content["lineage"][-1]["merged"])
    named = {"path": str(root), "manifest": manifest.digest_of(content)}
    named |= {name: content[name] for name in ("version", "run_digest", "rows", "thresholds")}
    named |= {"published": content["rows"]["published"]}
    named |= {"lineage": content["lineage"]} if "lineage" in content else {}
    return Given(root, content, files, [named])


def _distinct(given: list[Given], out: Path, warn: Warn) -> list[Given]:
    """Without those that are there twice. Raises UsageError when a single one was given."""
    # What is merged already comes first, else it would count as new.
    standing = [data for data in given if _same(data.root, out)][:1]
    seen = {part["manifest"] for data in standing for part in data.parts}
    different = []
    for data in given:
        if data not in standing and seen.issuperset(part["manifest"] for part in data.parts):
            warn(f"{data.root}: is merged already, so nothing of it is added")
            continue
        seen |= {part["manifest"] for part in data.parts}
        different.append(data)
    if sum(len(data.parts) for data in different) < 2:
        raise UsageError("two different data sets at least are needed to merge")
    return different


def _winners(given: list[Given], keep: Keep) -> Winners:
    ids = np.concatenate([_ids(file) for data in given for file in data.files])
    order = np.argsort(ids, kind="stable")
    begins = np.flatnonzero(np.diff(ids[order], prepend=~ids[order[:1]]))
    ends = np.append(begins[1:], len(ids))[: len(begins)] - 1
    of = np.empty(len(ids), np.int64)
    of[order] = np.repeat(order[begins if keep == "first" else ends], ends - begins + 1)
    return Winners(of)


def _ids(file: PublishedFile) -> npt.NDArray[np.uint64]:
    """The ids of a file's rows, which are 16 hex digits, as numbers."""
    batches = reader.batches(file.path, ["id"])
    try:
        parts = [np.array([int(name, 16) for name in batch["id"].to_pylist()], np.uint64) for batch in batches]
    except (ValueError, TypeError, OverflowError) as error:
        raise reader.damaged(file.path, f"column id: {error}") from None
    return np.concatenate([np.empty(0, np.uint64), *parts])


def _tables(
    given: list[Given], winners: Winners, columns: Sequence[str] | None = None, *, losing: bool = False
) -> Iterator[tuple[pa.Table, Numbers, int]]:
    """Published rows in order: some of them, which of these are duplicates of others, and the number of the first.

    losing: files without duplicates are left out.
    """
    number = 0
    for file in (file for data in given for file in data.files):
        end = number + file.rows
        if not losing or len(winners.lost(range(number, end))):
            for batch in reader.batches(file.path, columns):
                lost = winners.lost(range(number, number + batch.num_rows))
                yield pa.Table.from_batches([batch]), lost, number
                number += batch.num_rows
        number = end


def _kept(given: list[Given], winners: Winners, advance: Advance) -> Iterator[pa.Table]:
    for table, lost, _ in _tables(given, winners):
        yield table.take(pa.array(np.delete(np.arange(table.num_rows), lost))) if len(lost) else table
        advance(table.num_rows)


def _ledger(given: list[Given], stage: str, winners: Winners, parts: list[dict[str, Any]]) -> Iterator[pa.Table]:
    """The rejects of a stage, of all data sets in order; behind those of `merge` the duplicates of this one."""
    for data in given:
        for entry in entries_of(data.root, data.content, "rejected_files"):
            if entry.path.stem.split("-")[0] == stage:
                yield from (pa.Table.from_batches([batch]) for batch in reader.batches(entry.path))
    if stage == "merge":
        yield from _duplicates(given, winners, parts)


def _duplicates(given: list[Given], winners: Winners, parts: list[dict[str, Any]]) -> Iterator[pa.Table]:
    ends = np.cumsum([part["published"] for part in parts])

    def named(rows: Numbers) -> list[dict[str, str]]:
        found = (parts[number] for number in np.searchsorted(ends, rows, "right").tolist())
        return [{"data_set": part["path"], "manifest": part["manifest"]} for part in found]

    for table, lost, first in _tables(given, winners, _CARRIED, losing=True):
        places = zip(lost.tolist(), named(lost + first), named(winners.of[lost + first]), strict=True)
        rejects = [Reject(i, "duplicate_id", {"published": kept, "rejected": own}) for i, own, kept in places]
        yield stage_files.reject_table("merge", table, rejects)
