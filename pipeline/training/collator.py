"""From rows of the data set to the tensors of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pipeline.training.loss import IGNORE

SIDES = ("revised", "initial")
COLUMNS = tuple(f"{side}_{name}" for side in SIDES for name in ("input_ids", "labels", "weights"))


@dataclass(frozen=True, slots=True)
class FigaCollator:
    """Pads on the right; nothing is cut.

    A published pair becomes two consecutive sequences, revised and initial; a row of the `sequences` export becomes one.
    Returns input_ids, attention_mask and labels (int64) and loss_weights (float32) of shape (sequences, longest).
    Padding has attention 0, label −100, weight 0, whatever `pad_token_id` is: it may be the EOS.
    """

    pad_token_id: int
    pad_to_multiple_of: int = 1

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        sequences = [sequence for row in rows for sequence in _sequences(row)]
        longest = max(len(ids) for ids, _, _ in sequences)
        length = -(-longest // self.pad_to_multiple_of) * self.pad_to_multiple_of
        shape = (len(sequences), length)
        ids = np.full(shape, self.pad_token_id, np.int64)
        mask = np.zeros(shape, np.int64)
        labels = np.full(shape, IGNORE, np.int64)
        weights = np.zeros(shape, np.float32)
        for number, (row_ids, row_labels, row_weights) in enumerate(sequences):
            end = len(row_ids)
            ids[number, :end], labels[number, :end], weights[number, :end] = row_ids, row_labels, row_weights
            mask[number, :end] = 1
        arrays = {"input_ids": ids, "attention_mask": mask, "labels": labels, "loss_weights": weights}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _sequences(row: dict[str, Any]) -> list[tuple[Any, Any, Any]]:
    if "input_ids" in row:
        return [(row["input_ids"], row["labels"], row["loss_weights"])]
    return [(row[f"{side}_input_ids"], row[f"{side}_labels"], row[f"{side}_weights"]) for side in SIDES]
