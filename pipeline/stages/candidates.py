"""Several revisions of a row: which one goes on. The filter stage's own gates decide, then the reward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pipeline.config.settings import FilterSettings
from pipeline.errors import RowReject
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.rewards.base import RewardModel
from pipeline.stages.filter import judge

# Given rows with `messages`, `reference`, `initial` and `reward_initial`, and each one's candidates: the index of one each.
Choose = Callable[[Sequence[dict[str, Any]], Sequence[Sequence[str]]], list[int]]


def chooser(settings: FilterSettings, tokenizer: LabelTokenizer, reward: RewardModel) -> Choose:
    """Chooses the candidate of highest reward among those that the filter lets through; the first if it lets none through.

    Of equal rewards the earlier candidate's wins. All candidates of all rows are scored together.
    """

    def choose(rows: Sequence[dict[str, Any]], candidates: Sequence[Sequence[str]]) -> list[int]:
        spread = [{**row, "revised": text} for row, texts in zip(rows, candidates, strict=True) for text in texts]
        judged = iter(judge(spread, settings, tokenizer, reward))
        chosen = []
        for texts in candidates:
            results = [next(judged) for _ in texts]
            fit = {n: r["reward_revised"] for n, r in enumerate(results) if not isinstance(r, RowReject)}
            chosen.append(max(fit, key=fit.__getitem__, default=0))
        return chosen

    return choose
