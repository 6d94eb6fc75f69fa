"""Check that everything a data set's manifest says is true.

Needs no work/ folder and calls no model: tokens, operations and weights are computed again from the stored texts. Streams:
memory holds a batch of rows, and 8 bytes per id.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from pipeline import schema
from pipeline.dataset import verify_files, verify_rows
from pipeline.dataset.manifest import file_entries
from pipeline.dataset.reader import read_manifest
from pipeline.dataset.verify_files import MANIFEST, Verification, VerifyProblem
from pipeline.errors import CurationError, StorageError, UsageError
from pipeline.labels.loading import difference, open_tokenizer, settings_of
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.storage.location import location

KEPT = 1000
# Opened with a title and a total; yields a function to be called with the number of rows that are done.
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


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
    result = Verification()
    for problem in _problems(root, content, result, sample, tokenizer, labels, progress):
        if problem.row is None and problem in result.problems:
            continue  # a file that can't be read is met twice
        result.count += 1
        if result.count <= KEPT:
            result.problems.append(problem)
        if first:
            break
    return result


def _problems(
    root: Path,
    content: dict[str, Any],
    result: Verification,
    sample: int | None,
    tokenizer: str | None,
    labels: bool,
    progress: Progress,
) -> Iterator[VerifyProblem]:
    """All problems, from the cheapest check to the longest; counts rows in `result`."""
    try:
        published, rejected = (file_entries(root, content, key) for key in ("files", "rejected_files"))
    except StorageError as error:
        yield VerifyProblem(MANIFEST, str(error).removeprefix(f"{root / MANIFEST}: "))
        return
    try:
        yield from verify_files.check_manifest(content, published, rejected)
        yield from verify_files.check_strangers(root, [*published, *rejected])
        yield from verify_files.check_ledger(content, rejected)
        own = (yield from _tokenizer(content["labels"], tokenizer, result)) if labels else None
        if schema.is_newer(version := content["schema_version"]):
            result.notes.append(f"schema {version} is newer than this program's: added columns are not checked")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        yield VerifyProblem(MANIFEST, f"can't be understood: {error!r}")
        return
    for entry in published:
        yield from verify_files.check_file(entry, content)
    ids: list[verify_rows.Ids] = []
    with progress(f"checking {root}", sum(entry.rows for entry in published)) as advance:
        for entry, chosen in zip(published, verify_rows.sampled(published, sample), strict=True):
            yield from verify_rows.check_rows(entry, ids, own, chosen, result, advance)
    for name in verify_rows.repeated(ids):
        yield VerifyProblem(MANIFEST, f"id {name} is in several rows", column="id")


def _tokenizer(
    labels: dict[str, Any], name: str | None, result: Verification
) -> Generator[VerifyProblem, None, LabelTokenizer | None]:
    """Returns the tokenizer that the labels were computed with; None, and a problem, when the available one is another."""
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
        yield VerifyProblem(MANIFEST, what)
        return None
    return tokenizer
