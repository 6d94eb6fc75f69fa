"""`figa compare DIR1 DIR2`: what another prompt, model or threshold changed between two data sets.

Compares settings, funnels, distributions, and rows gained, lost and changed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.arguments import add_json
from pipeline.storage.location import argument
from pipeline.text import visible

if TYPE_CHECKING:
    from pipeline.report.comparison import Comparison

_LISTED = 10


INTERRUPTED = "nothing was changed"
EPILOG = """\
example:
  figa compare out/before out/after --html compare.html
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("first", metavar="DIR1", type=argument, help="output folder of a finished run")
    p.add_argument("second", metavar="DIR2", type=argument, help="and of another")
    p.add_argument("--html", metavar="FILE", type=Path, help="also write a page with charts")
    add_json(p)


def run(arguments: argparse.Namespace) -> int:
    from pipeline.report import comparison
    from pipeline.storage.atomic import write_text

    found = comparison.compare(arguments.first, arguments.second)
    if arguments.html:
        write_text(arguments.html, comparison.render(found))
    if arguments.json:
        print(json.dumps(found.as_dict(), ensure_ascii=False))
        return 0
    _tell(found)
    if arguments.html:
        print(f"page  {arguments.html}")
    return 0


def _tell(found: Comparison) -> None:
    from rich.table import Table
    from rich.text import Text

    from pipeline.cli.console import Console
    from pipeline.report.diffs import append_diff, words

    console = Console()
    names = [side.name for side in found.sides]
    tables = (("settings that differ", found.settings), ("rows", found.funnel), ("figures (medians)", found.figures))
    for title, rows in tables:
        table = Table(title=title, title_justify="left")
        for name in ("", *names):
            table.add_column(Text(visible(name)))
        for row in rows:
            table.add_row(*(Text(visible(cell)) for cell in row))
        console.print(table)
    console.print(
        f"{found.shared} rows in both, {found.changed} of them with other answers; "
        f"{len(found.gained)} only in the second, {len(found.lost)} only in the first"
    )
    for told, ids in (("only in the second", found.gained), ("only in the first", found.lost)):
        if ids:
            more = f" … {len(ids) - _LISTED} more" if len(ids) > _LISTED else ""
            console.print(Text(f"{told}: {visible(', '.join(ids[:_LISTED]))}{more}"))
    if found.note:
        console.print(Text(found.note, "yellow"))
    for a, b in found.examples[:3]:
        text = Text(f"\n{visible(a['id'])}  from the first revision to the second, by words\n", "bold")
        body = Text()
        append_diff(body, *words(a["revised"], b["revised"]))
        console.print(text, body, sep="")
