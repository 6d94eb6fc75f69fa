"""`figa calibrate DIR`: plot the scores of a run, and say what thresholds would select and cost.

A row is selected when R(initial) < η1, R(reference) > η2 and R(reference) − R(initial) > η3; qX is the X quantile of this
run's scores. To use a choice: `figa build … --set selection.eta1=q0.4`; rows that are revised already are not paid again.
"""

import argparse
import re
from typing import Any

from pipeline.cli.arguments import add_dir
from pipeline.cli.console import Console, table
from pipeline.text import visible

EXAMPLES = ("figa calibrate out/hh-rlhf", "figa calibrate out/hh-rlhf --eta q0.4,q0.3,0 --eta -0.5,off,0.2")
_BAR_WIDTH = 50


def add_arguments(p: argparse.ArgumentParser) -> None:
    add_dir(p, "output folder of a run, with its folder work/")
    # A choice may begin with a minus, and is no flag then.
    p._negative_number_matcher = re.compile(r"-[.\d]")
    p.add_argument("--eta", metavar="η1,η2,η3", action="append", default=[], help="a choice; repeatable")


def run(arguments: argparse.Namespace) -> tuple[int, object]:
    from pipeline.run import calibration

    rows = calibration.scored_rows(arguments.dir)
    price, known_by = calibration.price_of_revision(arguments.dir)
    choices = calibration.choices(rows, arguments.eta, price)
    if not arguments.json:
        _plot(rows)
        columns = ("η1", "η2", "η3", "as numbers", "rows", "share", "revising costs")
        selected = table(f"what thresholds select of {len(rows):,} scored rows", columns, right=columns[4:])
        for choice in choices:
            numbers = " ".join("off" if number is None else f"{number:.3f}" for number in choice.numbers)
            cost = "unknown" if choice.cost_usd is None else f"${choice.cost_usd:.4f}"
            selected.add_row(*choice.given, numbers, f"{choice.rows:,}", f"{choice.share:.0%}", cost)
        Console().print(selected)
        print(f"costs: {visible(known_by)}; qX beside a bar: the share of rows up to its end")
    result = [choice._asdict() for choice in choices]
    return 0, {"rows": len(rows), "usd_a_revision": price, "known_by": known_by, "choices": result}


def _plot(rows: Any) -> None:
    """Print the distribution of the scores in a table of rows."""
    import numpy as np

    from pipeline.dataset.measures import histogram

    initial, reference = (rows[name].to_numpy().astype(np.float64) for name in ("reward_initial", "reward_reference"))
    plots = {
        "R(initial), for η1": initial,
        "R(reference), for η2": reference,
        "their difference, for η3": reference - initial,
    }
    for title, values in plots.items():
        bins = histogram({title: values}, bins=16)
        counts, below = bins.counts.get(title, []), 0
        print(f"{title}{'' if counts else ': no scored row'}")
        for left, right, count in zip(bins.edges, bins.edges[1:], counts, strict=False):
            below += count
            bar = f"{'█' * round(_BAR_WIDTH * count / max(counts))} {count}"
            print(f"  {left:8.3f} to {right:8.3f}  q{below / sum(counts):.2f}  {bar}")
        print()
