"""Select the rows worth correcting (paper §3.1): R(X, Ŷ) < η1, R(X, Y) > η2, R(X, Y) − R(X, Ŷ) > η3."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import schema
from pipeline.config import SelectionSettings
from pipeline.errors import RowReject
from pipeline.stages.common import Report, collect
from pipeline.storage.stagefile import StageOutput


@dataclass(frozen=True, slots=True)
class Thresholds:
    """η1, η2, η3 as numbers; None where the condition is off."""

    eta1: float | None
    eta2: float | None
    eta3: float | None

    def as_dict(self) -> dict[str, float | None]:
        return asdict(self)


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


def select(rows: pa.Table, thresholds: Thresholds, report: Report) -> StageOutput:
    """Adds nothing. Rejects: initial_good_enough (η1), reference_not_good (η2), reference_hardly_better (η3)."""
    reference = rows["reward_reference"].to_pylist()
    initial = rows["reward_initial"].to_pylist()
    results = [_judge(y, y_hat, thresholds) for y, y_hat in zip(reference, initial, strict=True)]
    report(len(results), sum(isinstance(result, RowReject) for result in results))
    return collect(rows, schema.SELECT, results)


def _judge(reference: float, initial: float, eta: Thresholds) -> dict[str, Any] | RowReject:
    if eta.eta1 is not None and not initial < eta.eta1:
        return RowReject("initial_good_enough", reward_initial=initial, eta1=eta.eta1)
    if eta.eta2 is not None and not reference > eta.eta2:
        return RowReject("reference_not_good", reward_reference=reference, eta2=eta.eta2)
    if eta.eta3 is not None and not reference - initial > eta.eta3:
        return RowReject("reference_hardly_better", difference=reference - initial, eta3=eta.eta3)
    return {}
