"""How far scores can be trusted, as numbers. Pure: pairs of scores and lengths in, no model, no file.

A margin is the score of the better answer of a pair less that of the worse one.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
# Of a standard normal: 95 %.
_Z = 1.959964


def wilson(right: float, of: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson): unlike ± it stays within 0 and 1, also for few and for all.

    >>> tuple(round(bound, 3) for bound in wilson(8, 10))
    (0.49, 0.943)
    """
    if not of:
        return 0.0, 1.0
    share, z2 = right / of, _Z**2
    middle = share + z2 / (2 * of)
    half = _Z * math.sqrt(share * (1 - share) / of + z2 / (4 * of**2))
    return max(0.0, (middle - half) / (1 + z2 / of)), min(1.0, (middle + half) / (1 + z2 / of))


def spearman(one: Numbers, other: Numbers) -> float | None:
    """Rank correlation in [−1, 1], ties at their mean rank; None when either does not vary. Both of shape (n,)."""
    ranks = [_ranks(values) - (len(values) + 1) / 2 for values in (one, other)]
    spread = math.sqrt(float((ranks[0] ** 2).sum()) * float((ranks[1] ** 2).sum())) if len(one) else 0.0
    return float(ranks[0] @ ranks[1]) / spread if spread else None


def _ranks(values: Numbers) -> Numbers:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Numbers = (last - (counts - 1) / 2)[places]
    return ranks


@dataclass(frozen=True, slots=True)
class Bucket:
    """Pairs of like margins: how sure the scores say they are, and how often they are right."""

    pairs: int
    margin: float
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Margins read as odds (Bradley–Terry): P(better) = σ(margin / temperature).

    temperature: that fits best; None where more certain is always better, or never. error: expected calibration error, the
    mean distance of confidence and accuracy, at the temperature 1 and at the best one.
    """

    temperature: float | None
    error: float
    error_fitted: float | None
    buckets: list[Bucket]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def calibration(margins: Numbers, buckets: int = 5) -> Calibration | None:
    """None without margins that differ from 0. Buckets hold like numbers of pairs."""
    told = margins[margins != 0]
    if not len(told):
        return None
    best = _temperature(told)
    found = _buckets(told, best or 1.0, buckets)
    fitted = _error(found) if best else None
    return Calibration(best, _error(_buckets(told, 1.0, buckets)), fitted, found)


def _temperature(margins: Numbers) -> float | None:
    """Where the likelihood of the margins' signs is highest, by bisection of its slope, which falls in 1/temperature."""
    scale = float(np.abs(margins).mean())
    units = margins / scale

    def slope(inverse: float) -> float:
        return float((units / (1 + np.exp(np.clip(inverse * units, -500, 500)))).sum())

    low, high = 0.0, 64.0
    if slope(low) <= 0 or slope(high) >= 0:
        return None
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return scale / high


def _buckets(margins: Numbers, temperature: float, count: int) -> list[Bucket]:
    ordered = margins[np.argsort(np.abs(margins), kind="stable")]
    return [
        Bucket(
            len(part),
            float(np.abs(part).mean()),
            float((1 / (1 + np.exp(-np.abs(part) / temperature))).mean()),
            float((part > 0).mean()),
        )
        for part in np.array_split(ordered, min(count, len(ordered)))
    ]


def _error(buckets: list[Bucket]) -> float:
    pairs = sum(bucket.pairs for bucket in buckets)
    return sum(bucket.pairs * abs(bucket.confidence - bucket.accuracy) for bucket in buckets) / pairs
