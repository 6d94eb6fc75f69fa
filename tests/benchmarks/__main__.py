"""`python -m tests.benchmarks [SUITE ...]`: run suites, print their tables.

    --list           the suites, what each measures, and the minutes that it takes on two quiet cores
    --quick          small sizes, one repeat, no rivals: shows that a suite runs, not how fast anything is
    --json FILE      also write the figures there
    --markdown FILE  also write the tables there

A suite is a module of this package with `run(*, quick: bool) -> list[Figure]`; the first line of its docstring says what it
measures. Machine, versions and load are printed before, time and load after every suite.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tests.benchmarks
from tests.benchmarks.measure import Figure

_SHARED = {"measure"}
_LIBRARIES = ("openai", "anthropic", "pyarrow", "transformers", "rapidfuzz", "prefect")
# On two quiet cores; `calls` and `resume` with the rivals' installation, the first of the two that runs.
MINUTES = {
    "calls": 8,
    "cost": 8,
    "labels": 3,
    "limits": 4,
    "orchestration": 9,
    "report": 2,
    "resume": 16,
    "revision_styles": 1,
    "rewards": 4,
    "scale": 6,
    "sources": 3,
    "startup": 1,
    "storage": 1,
}


def suites() -> list[str]:
    found = (module.name for module in pkgutil.iter_modules(tests.benchmarks.__path__))
    return sorted(name for name in found if not name.startswith(("_", "test_")) and name not in _SHARED)


def about(name: str) -> str:
    return (importlib.import_module(f"tests.benchmarks.{name}").__doc__ or "").splitlines()[0]


def load() -> list[float]:
    return [round(part, 2) for part in os.getloadavg()]


def machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "cores": os.cpu_count(),
        "load": load(),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def table(name: str, figures: list[Figure], told: str) -> str:
    lines = [f"### {name}", "", about(name), "", "| figure | value | spread | target |", "|---|---:|---|---|"]
    for figure in figures:
        value = "not measured" if figure.value is None else f"{figure.value:.4g} {figure.unit}"
        spread = "" if figure.low is None else f"{figure.low:.4g} to {figure.high:.4g}"
        lines.append(f"| {figure.name} | {value} | {spread} | {figure.target} |")
    return "\n".join([*lines, "", told])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", nargs="*", choices=[*suites(), []], help="default: all", metavar="SUITE")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    given = parser.parse_args(arguments)
    chosen = given.suite or suites()
    if given.list:
        for name in chosen:
            print(f"{name:16} {MINUTES[name]:3} min  {about(name)}")
        return 0
    result: dict[str, Any] = {"machine": machine(), "suites": {}}
    pages = [f"Measured on {json.dumps(result['machine'])}"]
    print(pages[0], flush=True)
    for name in chosen:
        started = time.monotonic()
        figures = importlib.import_module(f"tests.benchmarks.{name}").run(quick=given.quick)
        result["suites"][name] = [figure.as_dict() for figure in figures]
        took = (time.monotonic() - started) / 60
        told = f"Took {took:.1f} min (stated: {MINUTES[name]}); load after it {load()}."
        pages.append(table(name, figures, told))
        print(f"\n{pages[-1]}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(result, indent=2))
    if given.markdown:
        given.markdown.write_text("\n\n".join(pages) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
