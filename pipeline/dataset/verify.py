"""Check that everything a data set's manifest says is true.

Needs no work/ folder and calls no model: tokens, operations and weights are computed again from the stored texts. Streams:
memory holds a batch of rows, and 8 bytes per id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.dataset import verify_files, verify_rows
from pipeline.dataset.manifest import FileEntry, file_entries
from pipeline.dataset.reader import read_manifest
from pipeline.dataset.verify_files import MANIFEST, VerifyProblem
from pipeline.errors import CurationError, StorageError, UsageError
from pipeline.labels.description import difference, settings_of
from pipeline.labels.loading import open_tokenizer
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.storage.location import location

KEPT = 1000
# Opened with a title and a total; yields a function to be called with the number of rows that are done.
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


class _Enough(Exception):
    """One problem is known, and no more are wanted."""


@dataclass(slots=True)
class Verification:
    """The result of verifying a data set.

    problems: the first thousand; count: all. rows: those that could be read; labelled: those whose labels were computed again
    and compared. first: stop at the first problem.
    """

    rows: int = 0
    labelled: int = 0
    count: int = 0
    first: bool = False
    problems: list[VerifyProblem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, problems: Iterable[VerifyProblem]) -> None:
        for problem in problems:
            if problem.row is None and problem in self.problems:
                continue  # a file that can't be read is met twice
            self.count += 1
            if self.count <= KEPT:
                self.problems.append(problem)
            if self.first:
                raise _Enough

    def as_dict(self) -> dict[str, Any]:
        return {
            "ok": not self.count,
            "rows": self.rows,
            "labels_checked": self.labelled,
            "problems": self.count,
            "first_problems": [asdict(problem) for problem in self.problems],
            "notes": self.notes,
        }


@contextmanager
def no_progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    yield lambda rows: None


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
    content = read_manifest(root, sealed=False)
    result = Verification(first=first)
    with suppress(_Enough):
        try:
            published = _check_manifest(root, content, result)
            own = _tokenizer(content, tokenizer, result) if labels else None
            if verify_files.is_newer(content["schema_version"]):
                version = content["schema_version"]
                result.notes.append(f"schema {version} is newer than this program's: added columns are not checked")
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            result.add([VerifyProblem(MANIFEST, f"can't be understood: {error!r}")])
            return result
        for entry in published:
            result.add(verify_files.check_file(entry, content))
        _check_rows(root, published, own, sample, result, progress)
    return result


def _check_manifest(root: Path, content: dict[str, Any], result: Verification) -> list[FileEntry]:
    """Check the manifest and the rejects; returns the published files."""
    try:
        published, rejected = (file_entries(root, content, key) for key in ("files", "rejected_files"))
    except StorageError as error:
        raise ValueError(str(error)) from None
    result.add(verify_files.check_manifest(content, published, rejected))
    result.add(verify_files.check_strangers(root, [*published, *rejected]))
    result.add(verify_files.check_ledger(content, rejected))
    return published


def _check_rows(
    root: Path,
    published: list[FileEntry],
    tokenizer: LabelTokenizer | None,
    sample: int | None,
    result: Verification,
    progress: Progress,
) -> None:
    samples = [None] * len(published) if sample is None else verify_rows.draw(published, sample)
    ids = verify_rows.Ids()
    with progress(f"checking {root}", sum(entry.rows for entry in published)) as advance:

        def done(rows: int, labelled: int) -> None:
            result.rows += rows
            result.labelled += labelled
            advance(rows)

        for entry, drawn in zip(published, samples, strict=True):
            result.add(verify_rows.check_rows(entry, ids, tokenizer, drawn, done))
    repeated = (VerifyProblem(MANIFEST, f"id {name} is in several rows", column="id") for name in ids.repeated())
    result.add(repeated)


def _tokenizer(content: dict[str, Any], name: str | None, result: Verification) -> LabelTokenizer | None:
    """The tokenizer that the labels were computed with; None, and a problem, when the available one is another."""
    labels = content["labels"]
    used = name or str(labels["tokenizer"])
    settings = settings_of(labels)
    try:
        tokenizer = open_tokenizer(used, settings)
    except CurationError as error:
        raise UsageError(f"{error}; name it with --tokenizer PATH_OR_ID, or check the rest with --no-labels") from None
    other = difference(labels, tokenizer)
    if other and tokenizer.identity == labels.get("identity"):
        result.notes.append(f"{other}; labels that differ may differ for that reason")
    elif other:
        what = f"labels were not checked: tokenizer {used} is not the one they were made with: {other}"
        result.add([VerifyProblem(MANIFEST, what)])
        return None
    return tokenizer
