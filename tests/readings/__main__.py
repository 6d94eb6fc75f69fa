"""A sheet of pairs to read blind, and from two readers' marks the page docs/readings.md.

    figa build --source jsonl --input tests/readings/questions.jsonl --limit 1000 --out out/readings
    python -m tests.readings sheet out/readings > sheet.md
    python -m tests.readings page out/readings tests/readings/first.jsonl tests/readings/second.jsonl > docs/readings.md

A reader's marks are JSON Lines: {"id", "better": "A", "B" or "same", "coherent": [of A, of B]}. The pair's id says which of A
and B is the revision; the sheet doesn't.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pipeline
from pipeline.report.diffs import diff, words

Row = dict[str, Any]
VERDICTS = ("better", "worse", "same")


class Marks(NamedTuple):
    """Of one reader, a pair each. verdicts: of the revision, one of VERDICTS. coherent: initial answer, revision."""

    verdicts: list[str]
    coherent: list[tuple[bool, bool]]


def revision_first(row: Row) -> bool:
    return hashlib.sha256(row["id"].encode()).digest()[0] % 2 == 0


def sheet(rows: Sequence[Row]) -> str:
    parts = ["# Which answer is better, A or B, and is each coherent?"]
    for row in rows:
        answers = [row["initial"], row["revised"]]
        first, second = answers[::-1] if revision_first(row) else answers
        parts += [f"## {row['id']}", _query(row), f"**A**\n\n{first}", f"**B**\n\n{second}"]
    return "\n\n".join(parts) + "\n"


def read_marks(path: Path, rows: Sequence[Row]) -> Marks:
    """A reader's marks in the rows' order. Raises KeyError for a pair without one."""
    by_id = {mark["id"]: mark for mark in map(json.loads, path.read_text("utf-8").splitlines())}
    verdicts, coherent = [], []
    for row in rows:
        mark, revision = by_id[row["id"]], "A" if revision_first(row) else "B"
        verdicts.append("same" if mark["better"] == "same" else "better" if mark["better"] == revision else "worse")
        a, b = mark["coherent"]
        coherent.append((b, a) if revision == "A" else (a, b))
    return Marks(verdicts, coherent)


def page(rows: Sequence[Row], readers: Sequence[Marks], head: str) -> str:
    parts = [head, _table(readers)]
    for number, row in enumerate(rows, 1):
        told = ", ".join(reader.verdicts[number - 1] for reader in readers)
        edits = diff(*words(row["initial"], row["revised"]))
        marked = "".join(_MARKED[kind].format(html.escape(text)) for kind, text in edits)
        parts += [f"## {number}. {told}", _lines(f"<b>Query</b> {html.escape(_query(row))}")]
        parts += [_lines(f"<b>Reference</b> {html.escape(row['reference'])}"), _lines(f"<b>Revision</b> {marked}")]
    return "\n\n".join(parts) + "\n"


def _table(readers: Sequence[Marks]) -> str:
    lines = ["| of the revision | " + " | ".join(f"reader {n}" for n in range(1, len(readers) + 1)) + " |"]
    lines.append("|---|" + "---:|" * len(readers))
    count = len(readers[0].verdicts)
    for verdict in VERDICTS:
        cells = [str(reader.verdicts.count(verdict)) for reader in readers]
        lines.append(f"| {verdict} | {' | '.join(cells)} |")
    for side, name in enumerate(("initial answer", "revision")):
        cells = [str(sum(pair[side] for pair in reader.coherent)) for reader in readers]
        lines.append(f"| {name} coherent | {' | '.join(cells)} |")
    one, other = (reader.verdicts for reader in readers)
    alike = sum(a == b for a, b in zip(one, other, strict=True))
    chance = sum(one.count(verdict) * other.count(verdict) for verdict in VERDICTS) / count**2
    kappa = f"{(alike / count - chance) / (1 - chance):.2f}" if chance < 1 else "undefined"
    lines += ["", f"{count} pairs; both readers say the same of {alike}; Cohen's κ {kappa}."]
    return "\n".join(lines)


_MARKED = {"kept": "{}", "del": "<del>{}</del>", "ins": "<ins>{}</ins>"}


def _lines(text: str) -> str:
    """A block of HTML, in which Markdown reads nothing."""
    return f"<p>{text.replace(chr(10), '<br>')}</p>"


def _query(row: Row) -> str:
    return "\n".join(f"{message['role']}: {message['content']}" for message in row["messages"])


def main() -> int:
    p = argparse.ArgumentParser(prog="python -m tests.readings")
    p.add_argument("what", choices=("sheet", "page"))
    p.add_argument("data", type=Path, help="a published data set")
    p.add_argument("marks", type=Path, nargs="*", help="page: two files of marks")
    arguments = p.parse_args()
    columns = ["id", "messages", "reference", "initial", "revised"]
    rows = sorted(pipeline.open_dataset(arguments.data).to_table(columns).to_pylist(), key=lambda row: row["id"])
    if arguments.what == "sheet":
        sys.stdout.write(sheet(rows))
        return 0
    head = (Path(__file__).parent / "page.md").read_text("utf-8").strip()
    sys.stdout.write(page(rows, [read_marks(path, rows) for path in arguments.marks], head))
    return 0


if __name__ == "__main__":
    sys.exit(main())
