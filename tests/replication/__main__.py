"""`python -m tests.replication`: make the set, train every method, write the tables.

    pip install -e '.[local,train,dev]'
    python -m tests.replication [--out out/replication] [--docs docs]

Stop it whenever you like, kill -9 included: the same command goes on. It needs no GPU and no account.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

SEQUENCES, MAX_LENGTH, MOST_TOKENS, TEMPERATURE, VALIDATION = 8, 384, 64, 0.7, 16


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m tests.replication", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    p.add_argument("--out", type=Path, default=Path("out/replication"), help="set and results; resumable")
    p.add_argument("--docs", type=Path, help="rewrite replication.md and its plot in this folder, not in --out")
    p.add_argument("--limit", type=int, default=268, help="questions read for the training set")
    p.add_argument("--queries", type=int, default=32, help=f"held-out queries, beside {VALIDATION} for validation")
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--steps", type=int, default=16, help=f"optimiser steps of {SEQUENCES} sequences")
    p.add_argument("--rates", type=float, nargs="+", default=[3e-6, 1e-5, 5e-5], help="learning rates, tried for each")
    p.add_argument("--layers", type=int, default=2, help="top layers that are trained")
    p.add_argument("--only-report", action="store_true", help="run nothing: tables and plot of what is there")
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
    from tests.replication import data, policy, report
    from tests.replication.experiment import Experiment, Plan
    from tests.replication.training import Budget

    made = arguments.out / "set"
    if not arguments.only_report:
        data.make_set(made, arguments.limit)
    budget = Budget(arguments.steps, SEQUENCES, MAX_LENGTH)
    plan = Plan(budget, tuple(arguments.rates), arguments.seeds, arguments.layers, TEMPERATURE, MOST_TOKENS)
    experiment = Experiment(arguments.out, made, data.held_out(arguments.queries, VALIDATION), plan)
    if not arguments.only_report:
        experiment.run(policy.load)
    print(report.write(experiment, {"machine": _machine()}, arguments.docs or arguments.out))


def _machine() -> str:
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {libraries}"


if __name__ == "__main__":
    sys.exit(main())
