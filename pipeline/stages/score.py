"""Score: R(X, Y) and R(X, Ŷ), by the same model, with the same template."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.errors import RowReject
from pipeline.rewards import RewardModel
from pipeline.stages.common import Report, collect
from pipeline.storage.stagefile import StageOutput

# Rows a call of the reward model; it makes its own batches of them.
CHUNK = 256


def score(rows: pa.Table, reward: RewardModel, report: Report) -> StageOutput:
    """Adds `reward_model`, `reward_reference`, `reward_initial`. Rejects: bad_reward (not a finite number)."""
    results: list[dict[str, Any] | RowReject] = []
    for start in range(0, rows.num_rows, CHUNK):
        chunk = rows.slice(start, CHUNK).select(["messages", "reference", "initial"]).to_pylist()
        items = [(row["messages"], row[side]) for side in ("reference", "initial") for row in chunk]
        scores = [float(value) for value in reward.score(items)]
        pairs = list(zip(scores[: len(chunk)], scores[len(chunk) :], strict=True))
        made = [_row(reward.name, *pair) for pair in pairs]
        results += made
        report(len(made), sum(isinstance(result, RowReject) for result in made))
    return collect(rows, schema.SCORE, results)


def _row(name: str, reference: float, initial: float) -> dict[str, Any] | RowReject:
    if not (math.isfinite(reference) and math.isfinite(initial)):
        return RowReject("bad_reward", reward_reference=str(reference), reward_initial=str(initial))
    return {"reward_model": name, "reward_reference": reference, "reward_initial": initial}
