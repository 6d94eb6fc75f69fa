"""Behind `figa rewards check`: compare a reward model with pairs of which the better answer is known."""

import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pipeline import sources
from pipeline.config.settings import SourceSettings
from pipeline.errors import InputError, RowReject
from pipeline.rewards.base import RewardModel, Score, score_items
from pipeline.rewards.diagnostics import MOST_EXPLAINED, Numbers, calibration, spearman, wilson
from pipeline.rewards.judge import PairwiseJudge

# How far from 50 % an unbiased judge may prefer one position.
_MOST_BIAS = 0.1
_WORST_CALIBRATION = 0.1


class Pair(NamedTuple):
    """Two answers to the same messages; the chosen one is better."""

    messages: list[dict[str, str]]
    chosen: str
    rejected: str


def read_pairs(settings: SourceSettings, limit: int | None, warn: Callable[[str], None]) -> tuple[list[Pair], int]:
    """The pairs of a source, and the number of rows without one. Raises InputError when there is no pair."""
    source = sources.resolve_source(settings, warn)
    adapters = sources.open_adapters(settings, source, warn)
    pairs: list[Pair] = []
    without, first_reject = 0, None
    for record in sources.records(source, warn=warn):
        if limit is not None and len(pairs) >= limit:
            break
        try:
            if isinstance(record.value, RowReject):
                raise record.value
            row = adapters[record.source].parse(record.value)
        except RowReject as reject:
            reject.evidence.setdefault("where", record.where)
            without, first_reject = without + 1, first_reject or reject
            continue
        if row.rejected is None or row.rejected == row.reference:
            without += 1
        else:
            pairs.append(Pair(row.messages, row.reference, row.rejected))
    if not pairs:
        if first_reject:
            raise sources.all_bad(without, first_reject, adapters)
        raise InputError(f"{source.location}: no row has a better and a worse answer, such as chosen and rejected")
    return pairs, without


def check(reward: RewardModel, pairs: list[Pair]) -> dict[str, Any]:
    """All measures of a reward model on the pairs, as JSON-serialisable values; shares are in [0, 1], `None` where unknown."""
    items = [(pair.messages, answer) for pair in pairs for answer in (pair.chosen, pair.rejected)]
    references = [pair.rejected for pair in pairs for _ in range(2)]
    size = 2 * reward.rows_per_call or len(items)
    chunks = [slice(start, start + size) for start in range(0, len(items), size)]
    began = time.perf_counter()
    scores = [score for chunk in chunks for score in score_items(reward, items[chunk], references[chunk])]
    seconds = time.perf_counter() - began
    both = list(zip(scores[::2], scores[1::2], strict=True))
    reasons = [_reject_reason(better) or _reject_reason(worse) for better, worse in both]
    kept = [n for n, reason in enumerate(reasons) if not reason]
    table = np.array([both[n] for n in kept], np.float64).reshape(-1, 2)
    margins = table[:, 0] - table[:, 1]
    longer = np.array([len(pairs[n].chosen) - len(pairs[n].rejected) for n in kept], np.float64)
    return {
        **reward.describe(),
        "pairs": len(pairs),
        "scored": len(kept),
        "rejected": dict(Counter(reason for reason in reasons if reason)),
        "accuracy": _share_positive(margins),
        "ties": int((margins == 0).sum()),
        "scores": {"mean": float(table.mean()) if kept else None, "deviation": float(table.std()) if kept else None},
        "length": {
            "correlation": spearman(margins, longer),
            "longer_is_better": _share_positive(longer),
            "accuracy_when_longer_is_better": _share_positive(margins[longer > 0]),
            "accuracy_when_shorter_is_better": _share_positive(margins[longer < 0]),
        },
        "order": _measure_order_bias(reward, pairs) if isinstance(reward, PairwiseJudge) else None,
        "calibration": calibration(margins),
        "seconds": round(seconds, 3),
        "answers_per_second": round(len(items) / seconds, 1),
    }


def _reject_reason(score: Score) -> str | None:
    return score.reason if isinstance(score, RowReject) else None if math.isfinite(score) else "bad_reward"


def _share_positive(margins: Numbers) -> dict[str, Any]:
    """How often a margin is positive, ties counting half, with the 95 % interval."""
    right = float((margins > 0).sum() + 0.5 * (margins == 0).sum())
    low, high = wilson(right, len(margins))
    return {"share": right / len(margins) if len(margins) else None, "low": low, "high": high, "of": len(margins)}


def _measure_order_bias(judge: PairwiseJudge, pairs: list[Pair]) -> dict[str, Any]:
    """How often a judge prefers the first reply, and agrees with itself in both orders. Its responses are in the journal."""
    compared = judge.compare([(pair.messages, pair.chosen) for pair in pairs], [pair.rejected for pair in pairs])
    both = np.array([each for each in compared if not isinstance(each, RowReject)], np.float64).reshape(-1, 2)
    return {
        "prefers_first": float((both.mean() + 1) / 2) if len(both) else None,
        "consistent": float((np.sign(both[:, 0]) == -np.sign(both[:, 1])).mean()) if len(both) else None,
        # As if called in one order only, with the better answer first or second at random.
        "accuracy_unswapped": _share_positive(np.concatenate([both[:, 0], -both[:, 1]])),
    }


def concerns(result: dict[str, Any]) -> list[str]:
    """The arguments against the reward model in the result of `check`, one line each."""
    if not result["scored"]:
        return ["no pair could be scored"]
    lines = []
    correlation, order = result["length"]["correlation"], result["order"]
    if result["accuracy"]["low"] <= 0.5:
        lines.append("not shown to be better than chance on these pairs")
    if correlation is not None and correlation**2 > MOST_EXPLAINED:
        lines.append(f"mostly explained by length (rank correlation of margins and lengths {correlation:+.2f})")
    if order and abs(order["prefers_first"] - 0.5) > _MOST_BIAS:
        side = "first" if order["prefers_first"] > 0.5 else "second"
        lines.append(f"order bias: it prefers the {side} reply whatever that is; asking in both orders takes it out")
    if result["calibration"] and (result["calibration"]["error_fitted"] or 0) > _WORST_CALIBRATION:
        lines.append("margins don't say how sure it is, at any temperature: large ones are no more often right")
    if result["rejected"]:
        lines.append(f"{sum(result['rejected'].values())} pairs could not be scored")
    return lines
