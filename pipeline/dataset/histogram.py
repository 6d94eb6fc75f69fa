"""Counts in bins that several distributions share, so that they can be laid over one another."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# What lies outside is counted in the outermost bins: one outlier must not flatten everything else.
_CENTRAL = (0.001, 0.999)


@dataclass(frozen=True, slots=True)
class Histogram:
    """edges: bins + 1 ascending numbers; counts: rows per bin, for each distribution."""

    edges: list[float]
    counts: dict[str, list[int]]


def histogram(
    values: Mapping[str, npt.NDArray[np.floating]],
    bins: int | None = None,
    limits: tuple[float, float] | None = None,
    through: float | None = None,
) -> Histogram:
    """One histogram of all distributions that have values; what is not finite is left out.

    bins: default: by Rice's rule for the largest distribution, 10 to 40. limits: lowest and highest edge; default: those
    of the central 99.8 % of the values. through: a threshold, at which one bin ends and the next begins.
    """
    finite = {name: numbers[np.isfinite(numbers)] for name, numbers in values.items()}
    finite = {name: numbers for name, numbers in finite.items() if len(numbers)}
    if not finite:
        return Histogram([], {})
    low, high = limits or np.quantile(np.concatenate(list(finite.values())), _CENTRAL).tolist()
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    if bins is None:
        bins = min(40, max(10, math.ceil(2 * max(map(len, finite.values())) ** (1 / 3))))
    if through is not None and low < through < high:
        width = (high - low) / bins
        bins += 1
        low = through - math.ceil((through - low) / width) * width
        high = low + bins * width
    edges = np.linspace(low, high, bins + 1)
    # In float32 the highest value can lie above the highest edge, and would not be counted.
    clipped = {name: np.clip(numbers.astype(np.float64), low, high) for name, numbers in finite.items()}
    counts = {name: np.histogram(numbers, edges)[0].tolist() for name, numbers in clipped.items()}
    return Histogram(edges.tolist(), counts)


def median(values: npt.NDArray[np.floating]) -> float | None:
    """None where there is no finite value."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else None
