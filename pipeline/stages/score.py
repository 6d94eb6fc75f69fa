"""Score: R(X, Y) and R(X, Ŷ), by the same model, with the same template."""

import math

import pyarrow as pa

from pipeline import schema
from pipeline.errors import RowReject
from pipeline.models.chat import OnProgress
from pipeline.rewards.base import RewardModel, Score, score_items
from pipeline.storage.stage_files import RowResult, StageOutput, collect


def score(rows: pa.Table, reward: RewardModel, on_progress: OnProgress) -> StageOutput:
    """Adds `reward_model`, `reward_reference`, `reward_initial`.

    Rejects: bad_reward (not a finite number), and those of the reward model.
    """
    results: list[RowResult] = []
    size = reward.rows_per_call or max(1, rows.num_rows)
    for start in range(0, rows.num_rows, size):
        chunk = rows.slice(start, size).select(["messages", "reference", "initial"]).to_pylist()
        items = [(row["messages"], row[side]) for side in ("reference", "initial") for row in chunk]
        scores = score_items(reward, items, [row["reference"] for row in chunk] * 2)
        scored = [_row(reward.name, *pair) for pair in zip(scores[: len(chunk)], scores[len(chunk) :], strict=True)]
        results += scored
        on_progress(len(scored), sum(isinstance(result, RowReject) for result in scored))
    return collect(rows, schema.SCORE, results)


def _row(name: str, reference: Score, initial: Score) -> RowResult:
    sides = {"reward_reference": reference, "reward_initial": initial}
    known = {side: value for side, value in sides.items() if isinstance(value, float) and math.isfinite(value)}
    if len(known) == len(sides):
        return {"reward_model": name, **known}
    for side, value in sides.items():
        if isinstance(value, RowReject):
            return value.copy_with(score=side).with_columns(**known)
    return RowReject("bad_reward", **{side: str(value) for side, value in sides.items()})
