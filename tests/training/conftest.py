"""Fixtures of this folder. One thread: on tiny tensors, more of them only wait for each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training.tiny import EOS, pairs, tiny_llama


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def policy(published: Path) -> dict[str, Any]:
    """Weights of a tiny Llama that has learned to answer as the initial answers of 16 pairs do, their mistakes included.

    What FIGA starts from. A random model is confident in nothing, so the gate would be closed to every mistake.
    """
    import torch

    from pipeline.training import FigaCollator

    batch = FigaCollator(EOS)(list(pairs(published, 16)))
    initial = {name: batch[name][1::2] for name in ("input_ids", "attention_mask", "labels")}
    model = tiny_llama()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95))
    for _ in range(100):
        loss = model(**initial).loss
        if loss < 0.5:
            break
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return dict(model.state_dict())
