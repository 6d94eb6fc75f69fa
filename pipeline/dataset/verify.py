"""Check that everything a data set's manifest says is true. Needs no work/ folder and calls no model.

Tokens, operations and weights are computed again from the stored texts. Memory holds a batch of rows, and 8 bytes per id.
"""

import json
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.dataset import manifest, reader
from pipeline.dataset.manifest import FileEntry
from pipeline.dataset.verify_rows import ID_COLUMNS, Numbers, check_ids, check_labels, sampled
from pipeline.errors import CurationError, StorageError, UsageError
from pipeline.labels.loading import difference, open_tokenizer, settings_of
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.storage.location import location
from pipeline.text import one_line, redact_paths

KEPT = 1000
_BATCH = 512
_UNREADABLE = (OSError, ValueError, KeyError, pa.ArrowException)
# Opened with a title and a total; yields a function to be called with the number of rows that are done.
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


def no_progress(title: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda rows: None)


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


_of_manifest = partial(VerifyProblem, manifest.NAME)


@dataclass(slots=True)
class Verification:
    """problems: the first thousand; count: all. rows: that could be read; labelled: whose labels were computed and compared."""

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


def verify(
    folder: str | Path,
    *,
    sample: int | None = None,
    tokenizer: str | None = None,
    labels: bool = True,
    first: bool = False,
    progress: Progress = no_progress,
) -> Verification:
    """Check the data set in `folder`.

    sample: check the labels of so many rows only, drawn evenly and always the same ones; all else is checked whole.
    tokenizer: folder or Hub id to use instead of the recorded one, which it must equal. labels False: skip them.
    first: stop at the first problem.
    Raises InputError when no data set is there, ConfigError or ModelUnavailable when the tokenizer isn't available.
    """
    root = location(folder)
    checks = _Checks(root, reader.read_manifest(root, sealed=False))
    result = checks.result
    for problem in checks.all(sample, tokenizer, labels, progress):
        if problem.row is None and problem in result.problems:
            continue  # a file that can't be read is met twice
        result.count += 1
        if result.count <= KEPT:
            result.problems.append(problem)
        if first:
            break
    return result


@dataclass(slots=True)
class _Checks:
    """The checks of one data set. They yield problems, and count rows in `result`."""

    root: Path
    content: dict[str, Any]
    result: Verification = field(default_factory=Verification)
    ids: list[npt.NDArray[np.uint64]] = field(default_factory=list)

    def all(self, sample: int | None, name: str | None, labels: bool, progress: Progress) -> Iterator[VerifyProblem]:
        """All of them, from the cheapest to the longest."""
        try:
            published = manifest.file_entries(self.root, self.content)
            rejected = manifest.file_entries(self.root, self.content, "rejected_files")
            yield from self.numbers(published, rejected)
            yield from self.strangers([*published, *rejected])
            for entry in manifest.file_entries(self.root, self.content, "documents"):
                if reason := reader.difference(entry):
                    yield VerifyProblem(entry.name, f"{reason}; delete it and run the command that made the data set")
            yield from self.ledger(rejected)
            tokenizer = (yield from self.tokenizer(name)) if labels else None
            version = self.content["schema_version"]
            expected = schema.published_columns(version)
        except StorageError as error:
            yield _of_manifest(str(error).removeprefix(f"{self.root / manifest.NAME}: "))
            return
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            yield _of_manifest(f"can't be understood: {error!r}")
            return
        if schema.is_newer(version):
            self.result.notes.append(f"schema {version} is newer than this program's: added columns are not checked")
        for entry in published:
            yield from self.file(entry, expected)
            yield from self.reading(entry, partial(self.metadata, entry=entry))
        rows = [entry.rows for entry in published]
        with progress(f"checking {self.root}", sum(rows)) as advance:
            for entry, chosen in zip(published, sampled(rows, sample), strict=True):
                check = partial(self.rows, entry=entry, tokenizer=tokenizer, chosen=chosen, advance=advance)
                yield from self.reading(entry, check)
        values, counts = np.unique(np.concatenate([np.empty(0, np.uint64), *self.ids]), return_counts=True)
        for value in values[counts > 1].tolist():
            yield _of_manifest(f"id {value:016x} is in several rows", column="id")

    def numbers(self, published: list[FileEntry], rejected: list[FileEntry]) -> Iterator[VerifyProblem]:
        """The manifest's digest, and that its numbers add up."""
        content, rows = self.content, self.content["rows"]
        if "digest" not in content:
            yield _of_manifest("has no digest of itself: it was edited, or made before there was one")
        elif content["digest"] != manifest.digest_of(content):
            yield _of_manifest("was edited: its digest is not that of its content")
        for name, entries in (("published", published), ("rejected", rejected)):
            total = sum(entry.rows for entry in entries)
            if rows[name] != total:
                yield _of_manifest(f"says {rows[name]} rows {name}, its files have {total}")
        if rows["read"] != rows["published"] + rows["rejected"]:
            yield _of_manifest(f"{rows['read']} rows read are not {rows['published']} + {rows['rejected']}")
        left = rows["read"]
        for step in content["funnel"]:
            lost = sum(step["rejected"].values())
            if step["in"] != left or step["out"] != left - lost:
                counts = f"{left} came in, {lost} were rejected, {step['out']} go on"
                yield _of_manifest(f"funnel, {step['stage']}: {counts}")
            left = step["out"]
        if left != rows["published"]:
            yield _of_manifest(f"the funnel ends with {left} rows, {rows['published']} are published")

    def strangers(self, named: list[FileEntry]) -> Iterator[VerifyProblem]:
        """Parquet files beside the named ones: a reader that takes the whole folder would take them too."""
        known = {entry.path.resolve() for entry in named}
        for folder in ("data", "rejected"):
            for path in sorted((self.root / folder).rglob("*.parquet")):
                if path.resolve() not in known:
                    yield VerifyProblem(str(path.relative_to(self.root)), "is not in the manifest")

    def ledger(self, rejected: list[FileEntry]) -> Iterator[VerifyProblem]:
        """The rejects' files, and that their stages and reasons are those of the funnel."""
        stored: Counter[tuple[str, str]] = Counter()

        def count(file: pq.ParquetFile) -> Iterator[VerifyProblem]:
            for batch in file.iter_batches(columns=["stage", "reason"]):
                stored.update(zip(*(column.to_pylist() for column in batch.columns), strict=True))
            return iter(())

        for entry in rejected:
            yield from self.file(entry, schema.REJECTED)
            yield from self.reading(entry, count)
        said = {(step["stage"], reason): n for step in self.content["funnel"] for reason, n in step["rejected"].items()}
        for stage, reason in sorted(said.keys() | stored.keys()):
            number, there = said.get((stage, reason), 0), stored[stage, reason]
            if number != there:
                yield _of_manifest(f"funnel, {stage}: {number} rejected for {reason}, the ledger has {there}")

    def tokenizer(self, name: str | None) -> Generator[VerifyProblem, None, LabelTokenizer | None]:
        """Returns the labels' own tokenizer; None, and a problem, when the available one is another."""
        labels = self.content["labels"]
        used = name or str(labels["tokenizer"])
        try:
            tokenizer = open_tokenizer(used, settings_of(labels))
        except CurationError as error:
            hint = "name it with --tokenizer PATH_OR_ID, or check the rest with --no-labels"
            raise UsageError(f"{error}; {hint}") from None
        other = difference(labels, tokenizer)
        if other and tokenizer.identity == labels.get("identity"):
            self.result.notes.append(f"{other}; labels that differ may differ for that reason")
        elif other:
            what = f"labels were not checked: tokenizer {used} is not the one they were made with: {other}"
            yield _of_manifest(what)
            return None
        return tokenizer

    def file(self, entry: FileEntry, expected: pa.Schema) -> Iterator[VerifyProblem]:
        """Bytes, rows, columns, their types and order."""
        if reason := reader.difference(entry) if entry.path.exists() else "is missing":
            yield VerifyProblem(entry.name, reason)
        yield from self.reading(entry, partial(self.footer, entry=entry, expected=expected))

    def footer(self, file: pq.ParquetFile, entry: FileEntry, expected: pa.Schema) -> Iterator[VerifyProblem]:
        version = self.content["schema_version"]
        differences = list(reader.footer_differences(file, entry, expected))
        yield from (VerifyProblem(entry.name, what, column=column) for what, column in differences)
        columns = [name for name in file.schema_arrow.names if name in expected.names or not schema.is_newer(version)]
        if not differences and columns != expected.names:
            yield VerifyProblem(entry.name, f"is not of schema {version}: other columns, or in another order")

    def metadata(self, file: pq.ParquetFile, entry: FileEntry) -> Iterator[VerifyProblem]:
        """That the file belongs to this data set, in this place, and was labelled as the manifest says."""
        content, own = self.content, self.content["labels"]
        expected = {
            "figa.schema_version": [content["schema_version"]],
            "figa.run": [content["run_digest"]],
            # A republished file has 8 digits of its sha256 after that.
            "figa.part": ["-".join(entry.path.stem.split("-")[:4])],
            # Earlier versions wrote a tokenizer's whole path there as well.
            "figa.labels": [json.dumps(labels, sort_keys=True) for labels in (redact_paths(own), own)],
        }
        stored = file.schema_arrow.metadata or {}
        for key, values in expected.items():
            if stored.get(key.encode(), b"").decode("utf-8", "replace") not in values:
                what = f"its metadata {key} is not the manifest's: it is of another data set or place"
                yield VerifyProblem(entry.name, what)

    def rows(
        self,
        file: pq.ParquetFile,
        entry: FileEntry,
        tokenizer: LabelTokenizer | None,
        chosen: Numbers | None,
        advance: Callable[[int], None],
    ) -> Iterator[VerifyProblem]:
        """Ids, and the labels of the chosen rows, None: of all."""
        start = 0
        for batch in file.iter_batches(_BATCH, columns=None if tokenizer else ID_COLUMNS):
            table = pa.Table.from_batches([batch])
            wrong = list(check_ids(table))
            yield from (VerifyProblem(entry.name, what, start + place, column) for what, place, column in wrong)
            bad = {place for _, place, _ in wrong}
            good = [int(name, 16) for place, name in enumerate(table["id"].to_pylist()) if place not in bad]
            self.ids.append(np.array(good, np.uint64))
            numbers = np.arange(start, start + len(table))
            if chosen is not None:
                numbers = np.intersect1d(numbers, chosen)
            if tokenizer and len(numbers):
                for what, place, column in check_labels(table.take(pa.array(numbers - start)), tokenizer):
                    yield VerifyProblem(entry.name, what, int(numbers[place]), column)
                self.result.labelled += len(numbers)
            self.result.rows += len(table)
            start += len(table)
            advance(len(table))

    def reading(
        self, entry: FileEntry, check: Callable[[pq.ParquetFile], Iterator[VerifyProblem]]
    ) -> Iterator[VerifyProblem]:
        """The problems that `check` yields for an opened file; none for a missing one."""
        if not entry.path.exists():
            return
        try:
            with reader.open_file(entry.path) as file:
                yield from check(file)
        except _UNREADABLE as error:
            yield VerifyProblem(entry.name, f"can't be read as Parquet: {one_line(error)}")
