"""The command line: `python -m pipeline.show DIR`. Pairs and rejected rows in the terminal, in colour.

Texts are the data's: control characters are made visible, so that no escape sequence reaches the terminal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.storage.location import argument
from pipeline.streams import take_any_text

if TYPE_CHECKING:
    from rich.text import Text

    from pipeline.labels.tokenization import LabelTokenizer
    from pipeline.report.measures import Files

_EPILOG = """\
examples:
  python -m pipeline.show out/hh-rlhf --where 'reward_gain>2 and diagnosis=inaccuracy'
  python -m pipeline.show out/hh-rlhf --rejected --where 'reason=too_different'
  python -m pipeline.show out/hh-rlhf --row 1ad1b9395c257bc4

A condition compares a field with a number or a text by = != < <= > >= or ~ (contains); several are joined by `and`.
[-removed-] and {+added+} tokens; control characters and other invisible ones are shown by their code.
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m pipeline.show",
        description="Print pairs, or rejected rows, of a published data set.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("dir", metavar="DIR", type=argument, help="output folder of a finished run")
    p.add_argument("--row", metavar="ID", help="this row, published or rejected")
    p.add_argument("--rejected", action="store_true", help="rejected rows, with their reasons")
    p.add_argument("--where", metavar="CONDITION", default="", help="only rows for which it holds; see below")
    p.add_argument("--limit", metavar="N", type=int, default=10, help="at most so many rows (default 10, 0: all)")
    p.add_argument(
        "--tokenizer", metavar="PATH_OR_ID", help="the labels' tokenizer, where the recorded name is of no use"
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    take_any_text()
    arguments = parser().parse_args(argv)
    from pipeline.errors import CurationError

    try:
        return _main(arguments)
    except CurationError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, BrokenPipeError):
        # A pager that is left ends the pipe; Python must not find that out again when it flushes.
        sys.stderr.close()
        return 130


def _main(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from pipeline.errors import UsageError
    from pipeline.report.measures import files_of
    from pipeline.storage.published import read_manifest
    from pipeline.tokenizers import labels_tokenizer

    manifest = read_manifest(arguments.dir)
    files = files_of(arguments.dir, manifest)
    found = _rejected(files, arguments) if arguments.rejected else _published(files, arguments)
    rows = list(islice(found, arguments.limit or None))
    if not rows and arguments.row and not arguments.rejected:
        arguments.rejected = True
        rows = list(islice(_rejected(files, arguments), 1))
    if not rows and arguments.row:
        raise UsageError(f"{arguments.dir}: no row has the id {arguments.row!r}, published or rejected")
    tokenizer, note = (None, "") if arguments.rejected else labels_tokenizer(manifest, arguments.tokenizer)
    if note:
        print(f"note: {note}", file=sys.stderr)
    console = Console(highlight=False, soft_wrap=True)
    for row in rows:
        console.print(_reject(row) if arguments.rejected else _pair(row, tokenizer))
    told = f"{len(rows)} {'rejected rows' if arguments.rejected else 'pairs'} shown"
    at_most = f"; --limit {arguments.limit} was reached" if len(rows) == arguments.limit else ""
    print(f"{told}{at_most}", file=sys.stderr)
    return 0


def _published(files: Files, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from pipeline import schema

    return _matching(files.published, schema.PUBLISHED, arguments)


def _rejected(files: Files, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from pipeline import schema

    return _matching(files.rejected, schema.REJECTED, arguments)


def _matching(paths: list[Path], columns: Any, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from pipeline.report import where
    from pipeline.storage.published import batches

    conditions = where.parse(arguments.where, columns) if arguments.where.strip() else []
    if arguments.row:
        conditions.append(("id", "=", arguments.row))
    for path in paths:
        for batch in batches(path):
            yield from where.matching(conditions, batch)


def _pair(row: dict[str, Any], tokenizer: LabelTokenizer | None) -> Text:
    from pipeline import diffs
    from pipeline.report import tokens

    text = diffs.heading(row)
    sides = tokens.of_row(row, tokenizer)
    initial, revised = ((sides[side].texts, sides[side].ops) for side in tokens.SIDES)
    diffs.append_diff(text, initial, revised)
    text.append("\nreference  ", "dim")
    return text.append(diffs.visible(row["reference"]), "dim")


def _reject(row: dict[str, Any]) -> Text:
    from rich.text import Text

    from pipeline.diffs import visible

    text = Text(f"\n{visible(str(row['id']))}", "bold")
    text.append(f"  rejected at {visible(row['stage'])}: {visible(row['reason'])}\n", "not bold yellow")
    if row["messages"]:
        text.append(f"{visible(row['messages'][-1]['content'])}\n", "not bold cyan")
    for name in ("initial", "revised", "reference", "evidence"):
        if row[name]:
            text.append(f"{name:<10} ", "not bold dim")
            text.append(f"{visible(row[name])}\n", "not bold")
    return text


if __name__ == "__main__":
    sys.exit(main())
