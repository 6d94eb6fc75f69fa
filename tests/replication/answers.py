"""Answers of a policy to the held-out queries, sampled as the pipeline samples them but for llama.cpp's repeat penalty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

_BATCH = 64


class Answer(NamedTuple):
    """ids: without the EOS. cut: it had not ended after the most tokens that were allowed."""

    ids: list[int]
    cut: bool


def sample(
    model: Any, prompts: Sequence[Sequence[int]], eos: int, most: int, temperature: float, seed: int
) -> list[Answer]:
    """One answer a prompt. The same seed draws the same numbers for every model: a difference is then less by chance."""
    torch.manual_seed(seed)
    answers: list[Answer] = []
    for begin in range(0, len(prompts), _BATCH):
        answers += _batch(model, prompts[begin : begin + _BATCH], eos, most, temperature)
    return answers


def _batch(model: Any, prompts: Sequence[Sequence[int]], eos: int, most: int, temperature: float) -> list[Answer]:
    longest = max(map(len, prompts))
    ids = torch.tensor([[eos] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with torch.inference_mode():
        written = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=most,
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            eos_token_id=eos,
            pad_token_id=eos,
        )[:, longest:].tolist()
    ends = [row.index(eos) if eos in row else None for row in written]
    return [Answer(row[:end], end is None) for row, end in zip(written, ends, strict=True)]
