"""What the suites share: a measured figure, and repeating a measurement."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of a suite's table. `low` and `high` are the extremes over the repeats; `target` is what it should meet.

    Without a value it wasn't measured, and `target` says why.
    """

    name: str
    value: float | None
    unit: str
    low: float | None = None
    high: float | None = None
    target: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def peak_mb() -> float:
    """Peak resident memory of this process, MB. `ru_maxrss` would do for a parent only: a child's begins with its parent's."""
    (peak,) = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    return int(peak) / 1024


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def repeated(name: str, unit: str, values: Sequence[float], target: str = "") -> Figure:
    """The median of repeated measurements with their extremes."""
    return Figure(name, statistics.median(values), unit, min(values), max(values), target)


def ratios(work: Callable[[], float], limit: Callable[[], float], repeats: int) -> list[tuple[float, float]]:
    """(measured, limit) pairs, taken in turns so that both see the same load of the machine."""
    return [(work(), limit()) for _ in range(repeats)]


def child(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m module` in a process of its own, so that imports and peak memory are its own too."""
    import os

    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
