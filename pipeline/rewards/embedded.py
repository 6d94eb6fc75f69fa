"""The embedded reward model: a linear head on text features. Needs numpy and no download; about 1 ms a response.

It was trained to tell better from worse on small public data (data/README.md says which, and how well), and is the
default because it runs anywhere, not because it is strong: point `reward.model` at a real reward model when you can.

This file never trains; `pipeline.rewards.train_head` does, and writes the file that is read here.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelUnavailable
from pipeline.resources import folder
from pipeline.rewards import features

FORMAT = 1
EMPTY_SCORE = -10.0  # finite, and below anything that a text can get


def default_path() -> Path:
    """The head that ships with the package."""
    return folder("data") / "reward-head.npz"


def save_head(path: Path, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Write an npz whose bytes depend on the arrays alone: numpy's own writer stamps the time of day."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, arrays[name], allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), buffer.getvalue())


class EmbeddedReward:
    """Scores responses; higher is better. About unit variance over typical answers; only differences mean something.

    A score depends on its own (messages, response) alone: never on the batch, the process or the thread, since sums are
    exact (`math.fsum`), not numpy reductions. Holds no mutable state, so threads may share one.
    """

    name = "local/reward-head"

    def __init__(self, path: Path | None = None) -> None:
        path = path or default_path()
        try:
            raw = path.read_bytes()
            with np.load(io.BytesIO(raw), allow_pickle=False) as head:
                names, version = head["names"].tolist(), int(head["format"])
                dense, hashed, bias = head["dense"], head["hashed"], float(head["bias"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ModelUnavailable(f"reward head {path}: not readable as a head file ({error}); reinstall") from error
        if version != FORMAT or tuple(names) != features.NAMES or hashed.shape != (features.BUCKETS,):
            raise ModelUnavailable(f"reward head {path}: made for other features; train it again with train_head")
        self.digest = hashlib.sha256(raw).hexdigest()
        self._dense: list[float] = dense.astype(np.float64).tolist()
        self._hashed: npt.NDArray[np.float64] = hashed.astype(np.float64)
        self._bias = bias

    def score(self, items: Sequence[tuple[list[dict[str, str]], str]]) -> npt.NDArray[np.float32]:
        """Rewards of (messages, response) pairs, float32, shape (len(items),), finite for any text.

        `messages` are {"role", "content"} and end with the user turn that `response` answers. A blank response gets
        `EMPTY_SCORE`; beyond `features.MAX_CHARS` characters a text is not read.
        """
        return np.array([self._one(messages, response) for messages, response in items], dtype=np.float32)

    def _one(self, messages: list[dict[str, str]], response: str) -> float:
        if not response.strip():
            return EMPTY_SCORE
        values = features.dense(messages, response).tolist()
        buckets, each = features.hashed(response)
        words = each * math.fsum(self._hashed[buckets].tolist())
        return self._bias + math.fsum(w * x for w, x in zip(self._dense, values, strict=True)) + words
