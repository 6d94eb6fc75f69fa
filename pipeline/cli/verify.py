"""`figa verify DIR`: check that everything a data set's manifest says is true.

Checks files, rows and ids, and rebuilds every label from the stored texts. Works on a copy anywhere: stage files and journal
are not needed. Memory holds a batch of rows, and 8 bytes per id.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pipeline.cli.arguments import add_json, add_tokenizer
from pipeline.text import visible

if TYPE_CHECKING:
    from pipeline.dataset.problem import Problem
    from pipeline.dataset.verify_files import Entry
    from pipeline.dataset.verify_rows import Positions
    from pipeline.labels.tokenizer import LabelTokenizer

INTERRUPTED = "nothing was changed"
EPILOG = """\
examples:
  figa verify out/hh-rlhf
  figa verify out/hh-rlhf --sample 1000 --tokenizer org/my-sft-model

exit codes: 0 all is as the manifest says · 1 something is not · 2 no data set there, or no tokenizer
"""
_TELL = 20
_KEEP = 1000


class Enough(Exception):
    """One problem is known, and no more are wanted."""


@dataclass(slots=True)
class Report:
    """problems: the first thousand; count: all. rows: those that could be read; labelled: whose labels were made again and
    compared.

    first: stop at the first problem, by raising Enough.
    """

    rows: int = 0
    labelled: int = 0
    count: int = 0
    first: bool = False
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, problems: Iterator[Problem]) -> None:
        for problem in problems:
            if problem.row is None and problem in self.problems:
                continue  # a file that can't be read is met twice
            self.count += 1
            if self.count <= _KEEP:
                self.problems.append(problem)
            if self.first:
                raise Enough

    def as_dict(self) -> dict[str, Any]:
        return {
            "ok": not self.count,
            "rows": self.rows,
            "labels_checked": self.labelled,
            "problems": self.count,
            "first_problems": [problem.as_dict() for problem in self.problems],
            "notes": self.notes,
        }


def verify(
    folder: str | Path,
    *,
    sample: int | None = None,
    tokenizer: str | None = None,
    labels: bool = True,
    first: bool = False,
) -> Report:
    """Check the data set in `folder`.

    sample: make again the labels of so many rows, drawn evenly and always the same; all else is checked whole.
    tokenizer: folder or Hub id to use in place of the recorded one, which it must equal. labels False: leave them.
    first: stop at the first problem.
    Raises InputError when no data set is there, ConfigError or ModelUnavailable when the tokenizer can't be had.
    """
    from pipeline.dataset.reader import read_manifest
    from pipeline.storage.location import location

    root = location(folder)
    content = read_manifest(root, sealed=False)
    report = Report(first=first)
    with suppress(Enough):
        _verify(root, content, report, sample, tokenizer, labels)
    return report


def _verify(
    root: Path, content: dict[str, Any], report: Report, sample: int | None, tokenizer: str | None, labels: bool
) -> None:
    from pipeline.cli.console import progress_bar
    from pipeline.dataset import verify_files, verify_rows
    from pipeline.dataset.problem import Problem

    try:
        published, rejected = (verify_files.entries_of(root, content, key) for key in ("files", "rejected_files"))
        report.add(verify_files.check_manifest(content, published, rejected))
        report.add(verify_files.check_strangers(root, [*published, *rejected]))
        report.add(verify_files.check_ledger(content, rejected))
        own = _tokenizer(content, tokenizer, report) if labels else None
        expected = verify_rows.columns_of(content["schema_version"])
        if verify_files.newer(content["schema_version"]):
            report.notes.append(
                f"schema {content['schema_version']} is newer than this program's: added columns are not checked"
            )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        report.add(iter([Problem(verify_files.MANIFEST, f"can't be understood: {error!r}")]))
        return
    for entry in published:
        report.add(verify_files.check_file(entry, content, expected))
    total = sum(entry.rows for entry in published)
    samples = _draw(published, sample) if sample is not None and own else [None] * len(published)
    seen = verify_rows.Ids()
    with progress_bar(f"checking {root}", total) as advance:

        def done(count: int, labelled: int) -> None:
            report.rows += count
            report.labelled += labelled
            advance(count)

        for entry, drawn in zip(published, samples, strict=True):
            report.add(verify_rows.check_rows(entry, seen, own, drawn, done))
    report.add(Problem(verify_files.MANIFEST, f"id {name} is in several rows", column="id") for name in seen.repeated())


def _tokenizer(content: dict[str, Any], name: str | None, report: Report) -> LabelTokenizer | None:
    """The tokenizer that the labels were made with; None, and a problem, when the one found is another."""
    from pipeline.dataset.problem import Problem
    from pipeline.dataset.verify_files import MANIFEST
    from pipeline.errors import CurationError, UsageError
    from pipeline.labels.description import difference, settings_of
    from pipeline.labels.loading import open_tokenizer

    labels = content["labels"]
    used = name or str(labels["tokenizer"])
    settings = settings_of(labels)
    try:
        tokenizer = open_tokenizer(used, settings)
    except CurationError as error:
        raise UsageError(f"{error}; name it with --tokenizer PATH_OR_ID, or check the rest with --no-labels") from None
    other = difference(labels, tokenizer)
    if other and tokenizer.identity == labels.get("identity"):
        report.notes.append(f"{other}; labels that differ may differ for that reason")
    elif other:
        what = f"labels were not checked: tokenizer {used} is not the one they were made with: {other}"
        report.add(iter([Problem(MANIFEST, what)]))
        return None
    return tokenizer


def _draw(entries: Sequence[Entry], count: int) -> list[Positions | None]:
    """`count` row numbers over all files, evenly and always the same ones; for each file those that lie in it."""
    import numpy as np

    total = sum(entry.rows for entry in entries)
    drawn = np.sort(np.random.default_rng(0).choice(total, min(count, total), replace=False))
    ends = np.cumsum([entry.rows for entry in entries])
    parts = np.split(drawn, np.searchsorted(drawn, ends[:-1]))
    return [part - (end - entry.rows) for part, end, entry in zip(parts, ends, entries, strict=True)]


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("dir", metavar="DIR", help="output folder of a finished run")
    p.add_argument("--sample", metavar="N", type=rows_at_least_0, help="make again the labels of N rows only")
    add_tokenizer(p)
    p.add_argument("--no-labels", action="store_true", help="leave the labels; needs no tokenizer")
    p.add_argument("--first", action="store_true", help="stop at the first problem")
    add_json(p)


def rows_at_least_0(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def run(arguments: argparse.Namespace) -> tuple[int, object]:
    report = verify(
        arguments.dir,
        sample=arguments.sample,
        tokenizer=arguments.tokenizer,
        labels=not arguments.no_labels,
        first=arguments.first,
    )
    _tell(report, sys.stdout)
    return int(report.count > 0), report.as_dict()


def _tell(report: Report, out: TextIO) -> None:

    for note in report.notes:
        print(f"note: {note}", file=out)
    for problem in report.problems[:_TELL]:
        # A message may repeat what a damaged file holds.
        print(visible(str(problem).replace("\n", " ")), file=out)
    if report.count > _TELL:
        print(f"... and {report.count - _TELL} more (--json lists up to {_KEEP})", file=out)
    verdict = f"{report.count} problem{'s' * (report.count > 1)}" if report.count else "all is as the manifest says"
    print(f"{verdict}: {report.rows} rows, labels of {report.labelled} made again and compared", file=out)
