"""Which pairs a person sees first: by standardised reward gain minus edit distance, of equal ones the first stored."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.dataset import query
from pipeline.dataset.query import Condition
from pipeline.dataset.reader import batches

Floats = npt.NDArray[np.floating]
Positions = npt.NDArray[np.int64]
_SCORED = ["reward_initial", "reward_revised", "edit_distance"]
_BATCH = 1024


def best_first(gain: Floats, distance: Floats) -> Positions:
    """The order of pairs by gain and distance, both of shape (rows,). A gain that is not finite counts as the mean."""
    known = np.isfinite(gain)
    standardised = np.zeros(len(gain))
    if known.any() and (spread := gain[known].std(dtype=np.float64)) > 0:
        standardised[known] = (gain[known] - gain[known].mean(dtype=np.float64)) / spread
    return np.argsort(np.nan_to_num(distance) - standardised, kind="stable")


def best_rows(
    paths: Sequence[Path], count: int, conditions: Sequence[Condition] = ()
) -> tuple[Iterator[dict[str, Any]], int]:
    """The `count` best published rows that fulfil the conditions, and how many rows do. Raises StorageError."""
    needed = list(dict.fromkeys([*_SCORED, *query.columns_of(conditions)]))
    gains, distances, positions = [np.empty(0, np.float32)], [np.empty(0, np.float32)], [np.empty(0, np.int64)]
    first = 0
    for path in paths:
        for batch in batches(path, needed):
            initial, revised, distance = (batch[name].to_numpy(zero_copy_only=False) for name in _SCORED)
            chosen = np.flatnonzero(query.matches(conditions, batch))
            with np.errstate(invalid="ignore"):  # infinity minus infinity
                gains.append((revised.astype(np.float32) - initial.astype(np.float32))[chosen])
            distances.append(distance.astype(np.float32)[chosen])
            positions.append(chosen + first)
            first += batch.num_rows
    order = best_first(np.concatenate(gains), np.concatenate(distances))
    return rows_at(paths, np.concatenate(positions)[order[:count]]), len(order)


def rows_at(
    paths: Sequence[Path], positions: Positions, columns: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """The rows at these positions over all files, in the order of the positions."""
    wanted = np.sort(positions)
    # Arrow's rows until they are needed: as Python objects, ids and weights take ten times the memory.
    rows: list[pa.RecordBatch] = []
    first = 0
    for path in paths:
        for batch in batches(path, columns, _BATCH):
            inside = wanted[(wanted >= first) & (wanted < first + batch.num_rows)]
            taken = batch.take(pa.array(inside - first))
            rows += [taken.slice(n, 1) for n in range(len(inside))]
            first += batch.num_rows
    return (rows[place].to_pylist()[0] for place in np.searchsorted(wanted, positions))
