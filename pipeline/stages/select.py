"""Select the rows worth correcting (paper §3.1): R(X, Ŷ) < η1, R(X, Y) > η2, R(X, Y) − R(X, Ŷ) > η3.

Of several answers to a query one is picked first, by its score. Thresholds that are quantiles are those of the picked rows.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config.settings import SelectionSettings
from pipeline.models.chat import OnProgress
from pipeline.stages.common import QUERY, query_groups
from pipeline.storage.stage_files import Reject, StageOutput

# eta1, eta2, eta3 as numbers; None where the condition is off.
Thresholds = Mapping[str, float | None]
# The columns that `picked` and `resolve` need.
SCORES = [*QUERY, "reward_reference", "reward_initial"]
# For each threshold the reason of those that fail, and the name of their value in the evidence.
_FAILED = {
    "eta1": ("initial_good_enough", "reward_initial"),
    "eta2": ("reference_not_good", "reward_reference"),
    "eta3": ("reference_hardly_better", "difference"),
}
OFF: Thresholds = dict.fromkeys(_FAILED)


def compared(rows: pa.Table) -> dict[str, npt.NDArray[np.float64]]:
    """What each threshold is compared with, shape (rows,)."""
    reference, initial = (rows[f"reward_{side}"].to_numpy().astype(np.float64) for side in ("reference", "initial"))
    return {"eta1": initial, "eta2": reference, "eta3": reference - initial}


def passing(rows: pa.Table, thresholds: Thresholds) -> dict[str, npt.NDArray[np.bool_]]:
    """Which rows meet the condition of each threshold that is not off, shape (rows,)."""
    values = compared(rows)
    limits = {eta: limit for eta, limit in thresholds.items() if limit is not None}
    return {eta: values[eta] < limit if eta == "eta1" else values[eta] > limit for eta, limit in limits.items()}


def resolve(settings: SelectionSettings, scores: Iterable[pa.Table]) -> Thresholds:
    """Turn quantiles into numbers over all scored rows; each table has reward_reference and reward_initial."""
    tables = [compared(table) for table in scores]
    thresholds: dict[str, float | None] = {}
    for eta in _FAILED:
        limit = getattr(settings, eta)
        if isinstance(limit, str):
            values = np.concatenate([np.empty(0), *(table[eta] for table in tables)])
            limit = float(np.quantile(values, float(limit[1:]))) if len(values) else None
        thresholds[eta] = limit
    return thresholds


def select(rows: pa.Table, thresholds: Thresholds, on_progress: OnProgress, pick: str = "first") -> StageOutput:
    """Adds nothing. Rejects: not_picked (another answer to the query was), initial_good_enough (η1), reference_not_good
    (η2), reference_hardly_better (η3).

    pick: first, worst, best, median (the lower of an even number) or all.
    """
    values, passed = compared(rows), passing(rows, thresholds)
    kept: list[int] = []
    rejects: list[Reject] = []
    for index, chosen in enumerate(_picks(rows, pick)):
        failed = next((eta for eta, mask in passed.items() if not mask[index]), None)
        if chosen != index:
            evidence = {"picked": rows["id"][chosen].as_py(), "reward_picked": float(values["eta1"][chosen])}
            rejects.append(Reject(index, "not_picked", evidence))
        elif failed:
            reason, name = _FAILED[failed]
            evidence = {name: float(values[failed][index]), failed: thresholds[failed]}
            rejects.append(Reject(index, reason, evidence))
        else:
            kept.append(index)
    on_progress(rows.num_rows, len(rejects))
    return StageOutput(rows.take(pa.array(kept, pa.int64())), rejects)


def picked(rows: pa.Table, pick: str) -> pa.Table:
    """The rows that are picked of a table with the columns `SCORES`."""
    return rows.filter(pa.array([chosen == index for index, chosen in enumerate(_picks(rows, pick))], pa.bool_()))


def _picks(rows: pa.Table, pick: str) -> list[int]:
    """For each row, the index of the row that was picked for its query; with `all`, its own."""
    if pick == "all":
        return list(range(rows.num_rows))
    score = rows["reward_initial"].to_pylist().__getitem__
    chosen: list[int] = []
    for group in query_groups(rows):
        # Sorting is stable: of equal scores the first sample comes first.
        ranked = sorted(group, key=score)
        middle = ranked[(len(ranked) - 1) // 2]
        choices = {"first": group[0], "worst": ranked[0], "best": max(group, key=score), "median": middle}
        chosen += [choices[pick]] * len(group)
    return chosen
