"""FigaCollator: shapes, padding, and rows of either kind."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from pipeline.training import FigaCollator  # noqa: E402

PAIR = {
    "revised_input_ids": [5, 6, 7, 1],
    "revised_labels": [-100, 6, 7, 1],
    "revised_weights": [0.0, 1.0, 0.0, 1.0],
    "initial_input_ids": [5, 8, 1],
    "initial_labels": [-100, 8, 1],
    "initial_weights": [0.0, -0.5, 0.0],
}


def test_a_pair_becomes_two_neighbouring_rows() -> None:
    batch = FigaCollator(pad_token_id=1)([PAIR])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 1], [5, 8, 1, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert batch["labels"].tolist() == [[-100, 6, 7, 1], [-100, 8, 1, -100]]
    assert batch["loss_weights"].tolist() == [[0, 1, 0, 1], [0, -0.5, 0, 0]]
    assert {name: str(tensor.dtype) for name, tensor in batch.items()} == {
        "input_ids": "torch.int64",
        "attention_mask": "torch.int64",
        "labels": "torch.int64",
        "loss_weights": "torch.float32",
    }


def test_single_sequences_and_a_multiple() -> None:
    row = {"input_ids": [5, 8, 1], "labels": [-100, 8, 1], "loss_weights": [0.0, -0.5, 0.0]}
    batch = FigaCollator(pad_token_id=0, pad_to_multiple_of=8)([row, row])
    assert batch["input_ids"].tolist() == [[5, 8, 1, 0, 0, 0, 0, 0]] * 2
    assert batch["loss_weights"].shape == (2, 8)


def test_a_row_that_contradicts_itself_is_an_error() -> None:
    with pytest.raises(ValueError, match="shape"):
        FigaCollator(pad_token_id=0)([{**PAIR, "initial_labels": [8, 1]}])
