"""`python -m tests.replication`: make the set, train every method with every seed, write the table.

    pip install -e '.[local,train,dev]'
    python -m tests.replication [--input harmless-base-test.jsonl.gz] [--out out/replication] [--docs docs]

Stop it whenever you like, kill -9 included: the same command goes on. It needs no GPU and no account.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

SEQUENCES, MAX_LENGTH, MOST_TOKENS, TEMPERATURE = 16, 256, 64, 0.7


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m tests.replication", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    p.add_argument("--input", metavar="FILE", help="a local copy of the source; default: the Hub's hh-rlhf")
    p.add_argument("--out", type=Path, default=Path("out/replication"), help="sets and results; resumable")
    p.add_argument("--docs", type=Path, help="rewrite replication.md and its plots in this folder, not in --out")
    p.add_argument("--limit", type=int, default=448, help="rows read for the training set")
    p.add_argument("--queries", type=int, default=96, help="held-out queries")
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--steps", type=int, default=32, help=f"optimiser steps of {SEQUENCES} sequences")
    p.add_argument("--lr", type=float, default=1e-4)
    p.add_argument("--layers", type=int, default=4, help="top layers that are trained")
    p.add_argument("--only-report", action="store_true", help="run nothing: table and plots of what is there")
    return p


def main() -> int:
    # Threads that spin while they wait for each other make a small model many times slower on cores that are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = parser().parse_args()
    from pipeline.errors import CurationError

    try:
        _main(arguments)
    except CurationError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _main(arguments: argparse.Namespace) -> None:
    from tests.replication import experiment, judge, policy, report, rows, sets
    from tests.replication.training import Budget

    arguments.out.mkdir(parents=True, exist_ok=True)
    shared = rows.share_out(arguments.input, arguments.limit, arguments.queries)
    budget = Budget(arguments.steps, SEQUENCES, arguments.lr, MAX_LENGTH)
    plan = experiment.Plan(budget, arguments.seeds, arguments.layers, TEMPERATURE, MOST_TOKENS)
    if arguments.only_report:
        made = sets.there(arguments.out)
    else:
        made = sets.make(arguments.out, arguments.input, arguments.limit)
        experiment.run(arguments.out, policy.load, made, shared, plan)
    found = experiment.results(arguments.out, made, shared, plan)
    right = judge.accuracy(shared.chosen, shared.rejected)
    known = {"command": _command(arguments), **report.facts(found, made, shared, plan, right), "machine": _machine()}
    print(report.write(found, known, arguments.docs or arguments.out))


def _command(arguments: argparse.Namespace) -> str:
    """What was asked for, without this machine's paths."""
    changed = {name: value for name, value in vars(arguments).items() if value != parser().get_default(name)}
    flags = [
        f"--{name} {changed[name]}"
        for name in ("limit", "queries", "seeds", "steps", "lr", "layers")
        if name in changed
    ]
    local = ["--input FILE"] if arguments.input else []
    return f"`{' '.join(['python -m tests.replication', *local, *flags])}`"


def _machine() -> str:
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "rapidfuzz"))
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {libraries}"


if __name__ == "__main__":
    sys.exit(main())
