"""Select the rows worth correcting (paper §3.1): R(X, Ŷ) < η1, R(X, Y) > η2, R(X, Y) − R(X, Ŷ) > η3.

Of several answers to a query one is picked first, by its score; thresholds that are quantiles are of the picked ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config.settings import SelectionSettings
from pipeline.stages.common import QUERY, Report, queries
from pipeline.storage.stage_files import Reject, StageOutput


@dataclass(frozen=True, slots=True)
class Thresholds:
    """η1, η2, η3 as numbers; None where the condition is off."""

    eta1: float | None
    eta2: float | None
    eta3: float | None

    def as_dict(self) -> dict[str, float | None]:
        return asdict(self)


# What picking and resolving look at.
SCORES = [*QUERY, "reward_reference", "reward_initial"]
# No threshold at all: what nothing was selected by.
OFF = Thresholds(None, None, None)


def resolve(settings: SelectionSettings, scores: Iterable[pa.Table]) -> Thresholds:
    """Turn quantiles into numbers over all scored rows; each table has reward_reference and reward_initial."""
    columns = [
        (t["reward_reference"].to_numpy().astype(np.float64), t["reward_initial"].to_numpy().astype(np.float64))
        for t in scores
    ]
    reference = np.concatenate([c[0] for c in columns]) if columns else np.empty(0)
    initial = np.concatenate([c[1] for c in columns]) if columns else np.empty(0)

    def number(value: float | str | None, of: np.ndarray[Any, np.dtype[np.float64]]) -> float | None:
        if not isinstance(value, str):
            return value
        return float(np.quantile(of, float(value[1:]))) if len(of) else None

    return Thresholds(
        number(settings.eta1, initial), number(settings.eta2, reference), number(settings.eta3, reference - initial)
    )


def select(rows: pa.Table, thresholds: Thresholds, report: Report, pick: str = "first") -> StageOutput:
    """Adds nothing. Rejects: not_picked (another answer to the query was), initial_good_enough (η1), reference_not_good
    (η2), reference_hardly_better (η3).

    pick: first, worst, best, median (of an even number the lower) or all.
    """
    reference = rows["reward_reference"].to_pylist()
    initial = rows["reward_initial"].to_pylist()
    kept: list[int] = []
    rejects: list[Reject] = []
    for index, (y, y_hat, chosen) in enumerate(zip(reference, initial, _picks(rows, pick), strict=True)):
        if chosen in (None, index):
            reason, evidence = _judge(y, y_hat, thresholds)
        else:
            reason, evidence = "not_picked", {"picked": rows["id"][chosen].as_py(), "reward_picked": initial[chosen]}
        if reason:
            rejects.append(Reject(index, reason, evidence))
        else:
            kept.append(index)
    report(rows.num_rows, len(rejects))
    return StageOutput(rows.take(pa.array(kept, pa.int64())), rejects)


def picked(rows: pa.Table, pick: str) -> pa.Table:
    """The rows that are picked of a table with the columns `SCORES`."""
    return rows.filter(
        pa.array([chosen in (None, index) for index, chosen in enumerate(_picks(rows, pick))], pa.bool_())
    )


def _picks(rows: pa.Table, pick: str) -> list[int | None]:
    """Of each row, which one stands for its query; None: each for itself."""
    if pick == "all":
        return [None] * rows.num_rows
    numbers = queries(rows)
    chosen: list[int | None] = []
    if numbers and numbers[-1] == len(numbers) - 1:
        # A row each.
        return [*numbers]
    scores = rows["reward_initial"].to_pylist()
    for _, group in groupby(enumerate(numbers), key=lambda numbered: numbered[1]):
        members = [index for index, _ in group]
        # Sorting is stable: of equal scores the first sample comes first.
        ranked = sorted(members, key=lambda index: scores[index])
        best = max(members, key=lambda index: scores[index])
        one = {"first": members[0], "worst": ranked[0], "best": best, "median": ranked[(len(ranked) - 1) // 2]}[pick]
        chosen += [one] * len(members)
    return chosen


def _judge(reference: float, initial: float, eta: Thresholds) -> tuple[str | None, dict[str, float]]:
    """Why a row is not selected, with the evidence; None for one that is."""
    if eta.eta1 is not None and not initial < eta.eta1:
        return "initial_good_enough", {"reward_initial": initial, "eta1": eta.eta1}
    if eta.eta2 is not None and not reference > eta.eta2:
        return "reference_not_good", {"reward_reference": reference, "eta2": eta.eta2}
    if eta.eta3 is not None and not reference - initial > eta.eta3:
        return "reference_hardly_better", {"difference": reference - initial, "eta3": eta.eta3}
    return None, {}
