"""Behind `figa rewards check`: a reward model against pairs of which the better answer is known."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline import rewards, sources
from pipeline.config.settings import CurationConfig
from pipeline.errors import InputError, RowReject
from pipeline.rewards import RewardModel, Score
from pipeline.rewards.measures import calibration, spearman, wilson
from pipeline.rewards.pairs import Pair
from pipeline.rewards.trust import MOST_EXPLAINED

# A judge that is told the order means nothing may lean so far to one side.
_MOST_BIAS = 0.1
_WORST_CALIBRATION = 0.1


def read_pairs(config: CurationConfig, limit: int | None, warn: Callable[[str], None]) -> tuple[list[Pair], int]:
    """The pairs of the source that `config` names, and how many rows had none. Raises InputError when no row has any."""
    source = sources.resolve_source(config.source, warn)
    adapters = sources.open_adapters(config.source, source, warn)
    pairs: list[Pair] = []
    without, first = 0, None
    for record in sources.records(source, warn=warn):
        if limit is not None and len(pairs) >= limit:
            break
        try:
            if isinstance(record.value, RowReject):
                raise record.value
            row = adapters[record.source].parse(record.value)
        except RowReject as reject:
            reject.evidence.setdefault("where", record.where)
            without, first = without + 1, first or reject
            continue
        if row.rejected is None or row.rejected == row.reference:
            without += 1
        else:
            pairs.append(Pair(row.messages, row.reference, row.rejected))
    if not pairs and first:
        raise sources.all_bad(without, first, adapters)
    if not pairs:
        raise InputError(f"{source.location}: no row has a better and a worse answer, such as chosen and rejected")
    return pairs, without


def check(reward: RewardModel, pairs: list[Pair]) -> dict[str, Any]:
    """What there is to know of a reward model by pairs, as JSON has it; shares are from 0 to 1, `None` where unknown."""
    items = [(pair.messages, answer) for pair in pairs for answer in (pair.chosen, pair.rejected)]
    began = time.perf_counter()
    scores = _in_chunks(reward, items, [pair.rejected for pair in pairs for _ in range(2)])
    seconds = time.perf_counter() - began
    both = list(zip(scores[::2], scores[1::2], strict=True))
    rejects = Counter(reject.reason for two in both if (reject := _reject(two)))
    kept = [(pair, two) for pair, two in zip(pairs, both, strict=True) if not _reject(two)]
    better, worse = (np.array([two[side] for _, two in kept], np.float64) for side in (0, 1))
    margins = better - worse
    longer = np.array([len(pair.chosen) - len(pair.rejected) for pair, _ in kept], np.float64)
    everything = np.concatenate([better, worse])
    found = calibration(margins)
    return {
        **rewards.describe(reward),
        "pairs": len(pairs),
        "scored": len(kept),
        "rejected": dict(rejects),
        "accuracy": _share(margins),
        "ties": int((margins == 0).sum()),
        "scores": {"mean": _mean(everything), "deviation": float(everything.std()) if kept else None},
        "length": {
            "correlation": spearman(margins, longer),
            "longer_is_better": _share(longer),
            "accuracy_when_longer_is_better": _share(margins[longer > 0]),
            "accuracy_when_shorter_is_better": _share(margins[longer < 0]),
        },
        "order": _order(reward, pairs),
        "calibration": found.as_dict() if found else None,
        "seconds": round(seconds, 3),
        "answers_per_second": round(len(items) / seconds, 1),
    }


def _in_chunks(reward: RewardModel, items: list[Any], references: list[str]) -> list[Score]:
    size = 2 * (rewards.chunk(reward, 256) or len(items))
    starts = range(0, len(items), size)
    return [s for at in starts for s in rewards.scores(reward, items[at : at + size], references[at : at + size])]


def _reject(scores: tuple[Score, ...]) -> RowReject | None:
    for score in scores:
        if isinstance(score, RowReject):
            return score
        if not math.isfinite(score):
            return RowReject("bad_reward")
    return None


def _share(margins: Any) -> dict[str, Any]:
    """How often a margin is positive, ties counting half, with its 95 % interval."""
    right = float((margins > 0).sum() + 0.5 * (margins == 0).sum())
    low, high = wilson(right, len(margins))
    return {"share": right / len(margins) if len(margins) else None, "low": low, "high": high, "of": len(margins)}


def _mean(values: Any) -> float | None:
    return float(values.mean()) if len(values) else None


def _order(reward: RewardModel, pairs: list[Pair]) -> dict[str, Any] | None:
    """Of a judge of pairs: how often it prefers what it is shown first, and says the same in both orders."""
    orders = getattr(reward, "orders", None)
    if orders is None:
        return None
    # Its answers are in the journal by now.
    told = orders([(pair.messages, pair.chosen) for pair in pairs], [pair.rejected for pair in pairs])
    both = np.array([two for two in told if not isinstance(two, RowReject)], np.float64).reshape(-1, 2)
    consistent = (np.sign(both[:, 0]) == -np.sign(both[:, 1])).mean() if len(both) else None
    first = float((both.mean() + 1) / 2) if len(both) else None
    # Were it asked once only, with the better answer first or second at random.
    once = _share(np.concatenate([both[:, 0], -both[:, 1]]))
    return {
        "prefers_first": first,
        "consistent": None if consistent is None else float(consistent),
        "accuracy_unswapped": once,
    }


def concerns(found: dict[str, Any]) -> list[str]:
    """What speaks against the reward model, a line each."""
    told = []
    accuracy, length, order = found["accuracy"], found["length"], found["order"]
    if not found["scored"]:
        return ["no pair could be scored"]
    if accuracy["low"] <= 0.5:
        told.append("not shown to be better than chance on these pairs")
    if length["correlation"] is not None and length["correlation"] ** 2 > MOST_EXPLAINED:
        told.append(
            f"mostly explained by length (rank correlation of margins and lengths {length['correlation']:+.2f})"
        )
    if order and abs(order["prefers_first"] - 0.5) > _MOST_BIAS:
        side = "first" if order["prefers_first"] > 0.5 else "second"
        told.append(f"order bias: it prefers the {side} reply whatever that is; asking in both orders takes it out")
    if found["calibration"] and (found["calibration"]["error_fitted"] or 0) > _WORST_CALIBRATION:
        told.append("margins don't say how sure it is, at any temperature: large ones are no more often right")
    if found["rejected"]:
        told.append(f"{sum(found['rejected'].values())} pairs could not be scored")
    return told
