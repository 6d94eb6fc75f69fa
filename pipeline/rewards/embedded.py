"""The embedded reward model: two linear heads on text features. Needs numpy and no download; about 2 ms per answer.

One head learned what people prefer where a user provokes or confides (hh-rlhf), the other where one asks for facts or work
(broad sets). A third, on the n-grams of the query, says how much each counts.

It is the default because it runs anywhere, not because it is strong: data/README.md gives its training data and accuracy.
`data/train_reward_head.py` trains it and writes the file that is read here.
"""

import hashlib
import io
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelUnavailable
from pipeline.resources import folder
from pipeline.rewards.base import Item, RewardModel
from pipeline.rewards.features import BUCKETS, NAMES, dense, hashed, query_text

FORMAT = 2
EMPTY_SCORE = -10.0  # finite, and below the score of any other text


class EmbeddedReward(RewardModel):
    """Scores with about unit variance over typical answers; only differences mean something. Threads may share one.

    Sums are exact (`math.fsum`) instead of numpy reductions, so that a score is the same in every batch, process and thread.
    """

    name = "local/reward-head"

    def __init__(self, path: Path | None = None) -> None:
        path = path or folder("data") / "reward-head.npz"
        try:
            raw = path.read_bytes()
            with np.load(io.BytesIO(raw), allow_pickle=False) as head:
                names, version = head["names"].tolist(), int(head["format"])
                weights, bucket_weights, gate = head["dense"], head["hashed"], head["gate"]
                biases, gate_bias = head["bias"], float(head["gate_bias"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ModelUnavailable(f"reward head {path}: not readable as a head file ({error}); reinstall") from error
        if (
            version != FORMAT
            or tuple(names) != NAMES
            or bucket_weights.shape != (2, BUCKETS)
            or gate.shape != (BUCKETS,)
            or biases.shape != (2,)
        ):
            raise ModelUnavailable(
                f"reward head {path}: trained for other features; reinstall, or run data/train_reward_head.py"
            )
        self.digest = hashlib.sha256(raw).hexdigest()
        # (2, D), (2, BUCKETS) and (2,): a row for each expert.
        self._weights: list[list[float]] = weights.astype(np.float64).tolist()
        self._bucket_weights: npt.NDArray[np.float64] = bucket_weights.astype(np.float64)
        self._gate: npt.NDArray[np.float64] = gate.astype(np.float64)
        self._biases: list[float] = biases.tolist()
        self._gate_bias = gate_bias

    def score(self, items: Sequence[Item], references: Sequence[str] = ()) -> npt.NDArray[np.float32]:
        """float32, shape (len(items),), finite for any text; `EMPTY_SCORE` for a blank answer. References are not used."""
        return np.array([self._score_one(messages, answer) for messages, answer in items], dtype=np.float32)

    def _score_one(self, messages: list[dict[str, str]], answer: str) -> float:
        if not answer.strip():
            return EMPTY_SCORE
        first, second = self.by_expert(messages, answer)
        share = self.share_of_first(messages)
        return share * first + (1 - share) * second

    def by_expert(self, messages: list[dict[str, str]], answer: str) -> list[float]:
        """Both experts' scores of one answer; their means over the training texts are 0, so that the share sets no level."""
        buckets, value = hashed(answer)
        facts = dense(messages, answer).tolist()
        scores = []
        for bias, weights, bucket_weights in zip(self._biases, self._weights, self._bucket_weights, strict=True):
            words = value * math.fsum(bucket_weights[buckets].tolist())
            scores.append(bias + words + math.fsum(weight * fact for weight, fact in zip(weights, facts, strict=True)))
        return scores

    def share_of_first(self, messages: list[dict[str, str]]) -> float:
        """How much the first expert counts for a query, in (0, 1)."""
        buckets, value = hashed(query_text(messages))
        return 1 / (1 + math.exp(-self._gate_bias - value * math.fsum(self._gate[buckets].tolist())))
