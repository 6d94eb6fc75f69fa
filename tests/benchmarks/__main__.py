"""`python -m tests.benchmarks [SUITE ...] [--quick] [--json FILE] [--markdown FILE]`: run suites, print their tables.

A suite is a module of this package with `run(*, quick: bool) -> list[Figure]`; the first line of its docstring says what it
measures.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tests.benchmarks
from tests.benchmarks.measure import Figure

_SHARED = {"measure"}
_LIBRARIES = ("openai", "anthropic", "pyarrow", "transformers", "rapidfuzz", "prefect")


def suites() -> list[str]:
    found = (module.name for module in pkgutil.iter_modules(tests.benchmarks.__path__))
    return sorted(name for name in found if not name.startswith("_") and name not in _SHARED)


def machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "cores": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def table(name: str, about: str, figures: list[Figure]) -> str:
    lines = [f"### {name}", "", about, "", "| figure | value | spread | target |", "|---|---:|---|---|"]
    for figure in figures:
        spread = "" if figure.low is None else f"{figure.low:.4g} to {figure.high:.4g}"
        lines.append(f"| {figure.name} | {figure.value:.4g} {figure.unit} | {spread} | {figure.target} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("suite", nargs="*", choices=[*suites(), []], help="default: all")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it runs, not how fast")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--markdown", type=Path, help="also write the tables here")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "suites": {}}
    pages = [f"Measured on {json.dumps(result['machine'])}"]
    print(pages[0], flush=True)
    for name in arguments.suite or suites():
        module = importlib.import_module(f"tests.benchmarks.{name}")
        figures = module.run(quick=arguments.quick)
        result["suites"][name] = [figure.as_dict() for figure in figures]
        pages.append(table(name, (module.__doc__ or "").splitlines()[0], figures))
        print(f"\n{pages[-1]}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))
    if arguments.markdown:
        arguments.markdown.write_text("\n\n".join(pages) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
