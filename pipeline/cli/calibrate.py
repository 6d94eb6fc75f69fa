"""`figa calibrate DIR`: plot the scores of a run, and say what thresholds would select and cost.

A row is selected when R(initial) < η1, R(reference) > η2 and R(reference) − R(initial) > η3; qX is the X quantile of this
run's scores. To use a choice: `figa build … --set selection.eta1=q0.4`; rows that are revised already are not paid again.
"""

from __future__ import annotations

import argparse
import json
import re
from typing import TYPE_CHECKING

from pipeline.cli.arguments import add_json
from pipeline.storage.location import argument
from pipeline.text import visible

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.run.calibration import Choice

INTERRUPTED = "nothing was changed"
EPILOG = """\
examples:
  figa calibrate out/hh-rlhf
  figa calibrate out/hh-rlhf --eta q0.4,q0.3,0 --eta -0.5,off,0.2
"""
_WIDTH = 50


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("dir", metavar="DIR", type=argument, help="output folder of a run, with its folder work/")
    # A choice may begin with a minus, and is no flag then.
    p._negative_number_matcher = re.compile(r"-[.\d]")
    p.add_argument("--eta", metavar="η1,η2,η3", action="append", default=[], help="a choice; repeatable")
    add_json(p)


def run(arguments: argparse.Namespace) -> int:
    from pipeline.run import calibration

    table = calibration.scored_rows(arguments.dir)
    price, known_by = calibration.price_of_revision(arguments.dir)
    found = calibration.choices(table, arguments.eta, price)
    if arguments.json:
        choices = [choice.as_dict() for choice in found]
        told = {"rows": len(table), "usd_a_revision": price, "known_by": known_by, "choices": choices}
        print(json.dumps(told, ensure_ascii=False))
        return 0
    _plot(table)
    _tell(found, len(table), known_by)
    return 0


def _plot(table: pa.Table) -> None:
    import numpy as np

    from pipeline.dataset.histogram import histogram

    initial, reference = (table[name].to_numpy().astype(np.float64) for name in ("reward_initial", "reward_reference"))
    told = {
        "R(initial), for η1": initial,
        "R(reference), for η2": reference,
        "their difference, for η3": reference - initial,
    }
    for title, values in told.items():
        found = histogram({title: values}, bins=16)
        counts, below = found.counts.get(title, []), 0
        print(f"{title}{'' if counts else ': no scored row'}")
        for left, right, count in zip(found.edges, found.edges[1:], counts, strict=False):
            below += count
            bar = f"{'█' * round(_WIDTH * count / max(counts))} {count}"
            print(f"  {left:8.3f} to {right:8.3f}  q{below / sum(counts):.2f}  {bar}")
        print()


def _tell(found: list[Choice], rows: int, known_by: str) -> None:
    from rich.table import Table
    from rich.text import Text

    from pipeline.cli.console import Console

    table = Table(title=f"what thresholds select of {rows:,} scored rows", title_justify="left")
    for name in ("η1", "η2", "η3", "as numbers", "rows", "share", "revising costs"):
        table.add_column(name, justify="right" if name in ("rows", "share", "revising costs") else "left")
    for choice in found:
        numbers = " ".join("off" if number is None else f"{number:.3f}" for number in choice.numbers)
        cost = "unknown" if choice.cost_usd is None else f"${choice.cost_usd:.4f}"
        table.add_row(*choice.given, numbers, f"{choice.rows:,}", f"{choice.share:.0%}", cost)
    console = Console()
    console.print(table)
    console.print(Text(f"costs: {visible(known_by)}; qX beside a bar: the share of rows up to its end"), soft_wrap=True)
