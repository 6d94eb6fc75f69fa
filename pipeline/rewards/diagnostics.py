"""How far a reward model's scores can be trusted: measures of scores, and warnings from a run's own. Calls no model.

The reward should prefer the reference to the initial answer in at least 60 % of a run's scored rows, or selection and the
gain gate pick by chance. And length in characters should not explain more than half of the scores' variance: a rank
correlation of 0.71 either way.

A margin is the score of the better answer of a pair minus that of the worse one.
"""

import math
import shlex
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Numbers = npt.NDArray[np.float64]

LEAST_PREFERRED = 0.6
MOST_EXPLAINED = 0.5
COLUMNS = ["reference", "initial", "reward_reference", "reward_initial"]
# Enough for both figures to be within one percent.
MOST_ROWS = 20_000
# Fewer rows give no warning.
FEWEST_ROWS = 20
_BUCKETS = 5
# The 97.5 % quantile of a standard normal.
_Z = 1.959964


def measure(tables: Iterable[pa.Table]) -> dict[str, Any]:
    """rows, prefers_reference (a share; ties count against it) and length_correlation of about the first 20,000 rows.

    Tables have the columns `COLUMNS`; no more of them are read than needed.
    """
    read: list[pa.Table] = []
    for table in tables:
        read.append(table)
        if sum(map(len, read)) >= MOST_ROWS:
            break
    if not any(map(len, read)):
        return {"rows": 0}
    table = pa.concat_tables(read)
    reference, initial = (table[f"reward_{side}"].to_numpy().astype(np.float64) for side in ("reference", "initial"))
    lengths = [pc.utf8_length(table[side]).to_numpy().astype(np.float64) for side in ("reference", "initial")]
    correlation = spearman(np.concatenate([reference, initial]), np.concatenate(lengths))
    return {
        "rows": len(table),
        "prefers_reference": round(float((reference > initial).mean()), 4),
        "length_correlation": None if correlation is None else round(correlation, 4),
    }


def warnings(manifest: dict[str, Any]) -> list[str]:
    """One line per rule that the reward model breaks, by the manifest's `reward_check`."""
    measured = manifest.get("reward_check")
    if not measured or measured["rows"] < FEWEST_ROWS:
        return []
    lines, name = [], manifest["models"]["reward"]["name"]
    preferred, correlation = measured["prefers_reference"], measured["length_correlation"]
    if preferred < LEAST_PREFERRED:
        lines.append(
            f"the reward {name} prefers the reference to the initial answer in only {preferred:.0%} of {measured['rows']} "
            "rows: what it selects and lets pass is near chance, or the references are no better than the policy"
        )
    if correlation is not None and correlation**2 > MOST_EXPLAINED:
        longer = "longer" if correlation > 0 else "shorter"
        lines.append(
            f"the reward {name} is mostly explained by length: {longer} answers score higher (rank correlation "
            f"{correlation:+.2f})"
        )
    command = f"figa rewards check --model {shlex.quote(str(name).partition('#')[0])}"
    return [f"{line}. Check it: {command} (on the bundled pairs; --pairs FILE: on your own)" for line in lines]


def wilson(right: float, of: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson), which stays within 0 and 1 for few pairs and for extreme shares.

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
    spread = math.sqrt(float((ranks[0] ** 2).sum()) * float((ranks[1] ** 2).sum()))
    return float(ranks[0] @ ranks[1]) / spread if spread else None


def _ranks(values: Numbers) -> Numbers:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Numbers = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks


def calibration(margins: Numbers) -> dict[str, Any] | None:
    """Margins, shape (n,), read as odds (Bradley–Terry): P(better) = σ(margin / temperature). None if all are 0.

    temperature: the best fit; None where more certain is always better, or never. error: mean distance of confidence and
    accuracy at temperature 1; error_fitted: at the best one. buckets: equal numbers of pairs by the size of their margins.
    """
    margins = margins[margins != 0]
    if not len(margins):
        return None
    best = _fit_temperature(margins)
    buckets = _buckets(margins, best or 1.0)
    return {
        "temperature": best,
        "error": _calibration_error(_buckets(margins, 1.0)),
        "error_fitted": _calibration_error(buckets) if best else None,
        "buckets": buckets,
    }


def _fit_temperature(margins: Numbers) -> float | None:
    """The temperature of the highest likelihood, by bisection of its slope, which decreases in 1/temperature."""
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


def _buckets(margins: Numbers, temperature: float) -> list[dict[str, Any]]:
    ordered = margins[np.argsort(np.abs(margins), kind="stable")]
    return [
        {
            "pairs": len(part),
            "margin": float(np.abs(part).mean()),
            "confidence": float((1 / (1 + np.exp(-np.abs(part) / temperature))).mean()),
            "accuracy": float((part > 0).mean()),
        }
        for part in np.array_split(ordered, min(_BUCKETS, len(ordered)))
    ]


def _calibration_error(buckets: list[dict[str, Any]]) -> float:
    pairs = sum(bucket["pairs"] for bucket in buckets)
    return float(sum(bucket["pairs"] * abs(bucket["confidence"] - bucket["accuracy"]) for bucket in buckets) / pairs)
