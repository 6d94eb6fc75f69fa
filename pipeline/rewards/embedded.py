"""The embedded reward model: a linear head on text features. Needs numpy and no download; about 1 ms per answer.

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
from pipeline.rewards.features import BUCKETS, NAMES, dense, hashed

FORMAT = 1
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
                weights, bucket_weights, bias = head["dense"], head["hashed"], float(head["bias"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ModelUnavailable(f"reward head {path}: not readable as a head file ({error}); reinstall") from error
        if version != FORMAT or tuple(names) != NAMES or bucket_weights.shape != (BUCKETS,):
            raise ModelUnavailable(
                f"reward head {path}: trained for other features; reinstall, or run data/train_reward_head.py"
            )
        self.digest = hashlib.sha256(raw).hexdigest()
        self._weights: list[float] = weights.astype(np.float64).tolist()
        self._bucket_weights: npt.NDArray[np.float64] = bucket_weights.astype(np.float64)
        self._bias = bias

    def score(self, items: Sequence[Item], references: Sequence[str] = ()) -> npt.NDArray[np.float32]:
        """float32, shape (len(items),), finite for any text; `EMPTY_SCORE` for a blank answer. References are not used."""
        return np.array([self._score_one(messages, answer) for messages, answer in items], dtype=np.float32)

    def _score_one(self, messages: list[dict[str, str]], answer: str) -> float:
        if not answer.strip():
            return EMPTY_SCORE
        buckets, value = hashed(answer)
        words = value * math.fsum(self._bucket_weights[buckets].tolist())
        facts = zip(self._weights, dense(messages, answer).tolist(), strict=True)
        return self._bias + math.fsum(weight * fact for weight, fact in facts) + words
