"""`figa compare DIR1 DIR2`: what another prompt, model or threshold changed between two data sets.

Compares settings, funnels, distributions, and rows gained, lost and changed.
"""

import argparse
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.text import Text

from pipeline.cli.arguments import existing_folder
from pipeline.cli.console import Console, print_values, table
from pipeline.errors import UsageError
from pipeline.text import visible

EXAMPLES = ("figa compare out/before out/after --html compare.html",)
_LISTED = 10


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("first", metavar="DIR1", type=existing_folder, help="output folder of a finished run")
    p.add_argument("second", metavar="DIR2", type=existing_folder, help="and of another")
    p.add_argument("--html", metavar="FILE", type=Path, help="also write a page with charts")


def run(arguments: argparse.Namespace) -> tuple[int, object]:
    from pipeline.report import comparison
    from pipeline.report.diffs import append_diff, words
    from pipeline.storage.atomic import write_text

    if arguments.html:
        _check_free(arguments.html, (arguments.first, arguments.second))
    result = comparison.compare(arguments.first, arguments.second)
    if arguments.html:
        write_text(arguments.html, comparison.render(result))
        print_values(page=arguments.html)
    if arguments.json:
        return 0, result.as_dict()
    console = Console()
    columns = ("", *(visible(side.name) for side in result.sides))
    tables = {"settings that differ": result.settings, "rows": result.funnel, "figures (medians)": result.figures}
    for title, rows in tables.items():
        differences = table(title, columns)
        for row in rows:
            differences.add_row(*map(visible, row))
        console.print(differences)
    console.print(
        f"{result.shared} rows in both, {result.changed} of them with other answers; "
        f"{len(result.gained)} only in the second, {len(result.lost)} only in the first"
    )
    for title, ids in (("only in the second", result.gained), ("only in the first", result.lost)):
        if ids:
            more = f" … {len(ids) - _LISTED} more" if len(ids) > _LISTED else ""
            console.print(f"{title}: {visible(', '.join(ids[:_LISTED]))}{more}")
    if result.note:
        console.print(result.note, style="yellow")
    for a, b in result.examples[:3]:
        diff = Text(f"\n{visible(a['id'])}  from the first revision to the second, by words\n", "bold")
        body = Text()
        append_diff(body, *words(a["revised"], b["revised"]))
        console.print(diff, body, sep="")
    return 0, None


def _check_free(page: Path, roots: Sequence[Path]) -> None:
    """Refuse a file that is no page of charts, and one of a data set. Raises UsageError."""
    for root in roots:
        if page.resolve().is_relative_to(root.resolve()):
            raise UsageError(f"--html {page}: lies in the data set {root}; name a file outside it")
    with suppress(FileNotFoundError):
        if not page.read_bytes()[:15].lower().startswith(b"<!doctype html>"):
            raise UsageError(f"--html {page}: exists and is no page; name another file")
