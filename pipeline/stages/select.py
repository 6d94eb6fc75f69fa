"""Select the rows worth correcting (paper §3.1): R(X, Ŷ) < η1, R(X, Y) > η2, R(X, Y) − R(X, Ŷ) > η3.

Of several answers to a query one is picked first, by its score. Thresholds that are quantiles are those of the picked rows.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config.settings import SelectionSettings
from pipeline.stages.common import QUERY, OnProgress, query_groups
from pipeline.storage.stage_files import Reject, StageOutput


@dataclass(frozen=True, slots=True)
class Thresholds:
    """η1, η2, η3 as numbers; None where the condition is off."""

    eta1: float | None
    eta2: float | None
    eta3: float | None

    def as_dict(self) -> dict[str, float | None]:
        return asdict(self)


# The columns that `picked` and `resolve` need.
SCORES = [*QUERY, "reward_reference", "reward_initial"]
# No condition at all.
OFF = Thresholds(None, None, None)


def resolve(settings: SelectionSettings, scores: Iterable[pa.Table]) -> Thresholds:
    """Turn quantiles into numbers over all scored rows; each table has reward_reference and reward_initial."""
    tables = [table.select(["reward_reference", "reward_initial"]) for table in scores]

    def column(name: str) -> npt.NDArray[np.float64]:
        return np.concatenate([np.empty(0), *(table[name].to_numpy() for table in tables)], dtype=np.float64)

    def number(value: float | str | None, of: npt.NDArray[np.float64]) -> float | None:
        if not isinstance(value, str):
            return value
        return float(np.quantile(of, float(value[1:]))) if len(of) else None

    reference, initial = column("reward_reference"), column("reward_initial")
    return Thresholds(
        number(settings.eta1, initial), number(settings.eta2, reference), number(settings.eta3, reference - initial)
    )


def select(rows: pa.Table, thresholds: Thresholds, on_progress: OnProgress, pick: str = "first") -> StageOutput:
    """Adds nothing. Rejects: not_picked (another answer to the query was), initial_good_enough (η1), reference_not_good
    (η2), reference_hardly_better (η3).

    pick: first, worst, best, median (the lower of an even number) or all.
    """
    reference = rows["reward_reference"].to_pylist()
    initial = rows["reward_initial"].to_pylist()
    kept: list[int] = []
    rejects: list[Reject] = []
    for index, chosen in enumerate(_picks(rows, pick)):
        if chosen != index:
            evidence = {"picked": rows["id"][chosen].as_py(), "reward_picked": initial[chosen]}
            rejects.append(Reject(index, "not_picked", evidence))
        elif failed := _failed_condition(reference[index], initial[index], thresholds):
            rejects.append(Reject(index, *failed))
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
        choices = {
            "first": group[0],
            "worst": ranked[0],
            "best": max(group, key=score),
            "median": ranked[(len(ranked) - 1) // 2],
        }
        chosen += [choices[pick]] * len(group)
    return chosen


def _failed_condition(reference: float, initial: float, eta: Thresholds) -> tuple[str, dict[str, float]] | None:
    """The reason and evidence why a row is not selected; None for one that is."""
    if eta.eta1 is not None and not initial < eta.eta1:
        return "initial_good_enough", {"reward_initial": initial, "eta1": eta.eta1}
    if eta.eta2 is not None and not reference > eta.eta2:
        return "reference_not_good", {"reward_reference": reference, "eta2": eta.eta2}
    if eta.eta3 is not None and not reference - initial > eta.eta3:
        return "reference_hardly_better", {"difference": reference - initial, "eta3": eta.eta3}
    return None
