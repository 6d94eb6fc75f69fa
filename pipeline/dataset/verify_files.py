"""Manifest and files: digests, sizes, schemas, and that in = published + rejected. Reads of rows only the rejects' reasons."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.dataset import manifest
from pipeline.dataset.manifest import FileEntry
from pipeline.dataset.reader import difference, footer_differences, open_file
from pipeline.text import one_line, redact_paths

MANIFEST = manifest.NAME
UNREADABLE = (OSError, ValueError, KeyError, pa.ArrowException)


@dataclass(frozen=True, slots=True)
class VerifyProblem:
    """One thing that is not as the manifest says. file: relative to the data set's folder; row: from 0 in that file."""

    file: str
    what: str
    row: int | None = None
    column: str | None = None

    def __str__(self) -> str:
        row = f", row {self.row}" if self.row is not None else ""
        column = f", column {self.column}" if self.column else ""
        return f"{self.file}{row}{column}: {self.what}"


@dataclass(slots=True)
class Verification:
    """The result of verifying a data set.

    problems: the first thousand; count: all. rows: those that could be read; labelled: those whose labels were computed again
    and compared.
    """

    rows: int = 0
    labelled: int = 0
    count: int = 0
    problems: list[VerifyProblem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "ok": not self.count,
            "rows": self.rows,
            "labels_checked": self.labelled,
            "problems": self.count,
            "first_problems": [asdict(problem) for problem in self.problems],
            "notes": self.notes,
        }


def unreadable(entry: FileEntry, error: Exception) -> VerifyProblem:
    return VerifyProblem(entry.name, f"can't be read as Parquet: {one_line(error)}")


def check_manifest(
    content: dict[str, Any], published: list[FileEntry], rejected: list[FileEntry]
) -> Iterator[VerifyProblem]:
    """Its digest, and that its numbers add up."""
    if "digest" not in content:
        yield VerifyProblem(MANIFEST, "has no digest of itself: it was edited, or made before there was one")
    elif content["digest"] != manifest.digest_of(content):
        yield VerifyProblem(MANIFEST, "was edited: its digest is not that of its content")
    rows = content["rows"]
    for name, entries in (("published", published), ("rejected", rejected)):
        total = sum(entry.rows for entry in entries)
        if rows[name] != total:
            yield VerifyProblem(MANIFEST, f"says {rows[name]} rows {name}, its files have {total}")
    if rows["read"] != rows["published"] + rows["rejected"]:
        yield VerifyProblem(MANIFEST, f"{rows['read']} rows read are not {rows['published']} + {rows['rejected']}")
    left = rows["read"]
    for step in content["funnel"]:
        lost = sum(step["rejected"].values())
        if step["in"] != left or step["out"] != left - lost:
            what = f"funnel, {step['stage']}: {left} came in, {lost} were rejected, {step['out']} go on"
            yield VerifyProblem(MANIFEST, what)
        left = step["out"]
    if left != rows["published"]:
        yield VerifyProblem(MANIFEST, f"the funnel ends with {left} rows, {rows['published']} are published")


def check_strangers(root: Path, named: list[FileEntry]) -> Iterator[VerifyProblem]:
    """Parquet files beside the named ones: a reader that takes the whole folder would take them too."""
    known = {entry.path.resolve() for entry in named}
    for folder in ("data", "rejected"):
        for path in sorted((root / folder).rglob("*.parquet")):
            if path.resolve() not in known:
                yield VerifyProblem(str(path.relative_to(root)), "is not in the manifest")


def check_file(entry: FileEntry, content: dict[str, Any]) -> Iterator[VerifyProblem]:
    """Everything about one published file but its rows."""
    expected = schema.published_columns(content["schema_version"])
    yield from _check(entry, content, expected, lambda file: _check_metadata(file, entry, content))


def check_ledger(content: dict[str, Any], rejected: list[FileEntry]) -> Iterator[VerifyProblem]:
    """The rejects' files, and that their stages and reasons are those of the funnel."""
    stored: Counter[tuple[str, str]] = Counter()

    def count(file: pq.ParquetFile) -> Iterator[VerifyProblem]:
        for batch in file.iter_batches(columns=["stage", "reason"]):
            stored.update(zip(*(column.to_pylist() for column in batch.columns), strict=True))
        return iter(())

    for entry in rejected:
        yield from _check(entry, content, schema.REJECTED, count)
    counts = {(step["stage"], reason): n for step in content["funnel"] for reason, n in step["rejected"].items()}
    for stage, reason in sorted(counts.keys() | stored.keys()):
        said, there = counts.get((stage, reason), 0), stored[stage, reason]
        if said != there:
            what = f"funnel, {stage}: {said} rejected for {reason}, the ledger has {there}"
            yield VerifyProblem(MANIFEST, what)


def _check(
    entry: FileEntry,
    content: dict[str, Any],
    expected: pa.Schema,
    check_more: Callable[[pq.ParquetFile], Iterator[VerifyProblem]],
) -> Iterator[VerifyProblem]:
    if not entry.path.exists():
        yield VerifyProblem(entry.name, "is missing")
        return
    if reason := difference(entry):
        yield VerifyProblem(entry.name, reason)
    try:
        with open_file(entry.path) as file:
            yield from _check_footer(file, entry, expected, content["schema_version"])
            yield from check_more(file)
    except UNREADABLE as error:
        yield unreadable(entry, error)


def _check_footer(file: pq.ParquetFile, entry: FileEntry, expected: pa.Schema, version: str) -> Iterator[VerifyProblem]:
    """Rows, columns, their types and order. A newer version may have more columns."""
    differences = list(footer_differences(file, entry, expected))
    yield from (VerifyProblem(entry.name, what, column=column) for what, column in differences)
    columns = [name for name in file.schema_arrow.names if name in expected.names or not schema.is_newer(version)]
    if not differences and columns != expected.names:
        yield VerifyProblem(entry.name, f"is not of schema {version}: other columns, or in another order")


def _check_metadata(file: pq.ParquetFile, entry: FileEntry, content: dict[str, Any]) -> Iterator[VerifyProblem]:
    """That the file belongs to this data set, in this place, and was labelled as the manifest says."""
    metadata = file.schema_arrow.metadata or {}
    stored = {key.decode(): value.decode("utf-8", "replace") for key, value in metadata.items()}
    labels = json.dumps(redact_paths(content["labels"]), sort_keys=True)
    expected = {
        "figa.schema_version": [content["schema_version"]],
        "figa.run": [content["run_digest"]],
        # A republished file has 8 digits of its sha256 after that.
        "figa.part": ["-".join(entry.path.stem.split("-")[:4])],
        # Earlier versions wrote a tokenizer's whole path there as well.
        "figa.labels": [labels, json.dumps(content["labels"], sort_keys=True)],
    }
    for key, values in expected.items():
        if stored.get(key) not in values:
            what = f"its metadata {key} is not the manifest's: it is of another data set or place"
            yield VerifyProblem(entry.name, what)
