"""Answers of a policy to the held-out queries, sampled as the pipeline samples them but for llama.cpp's repeat penalty.

transformers' `generate` would do; this is several times cheaper, because an answer that has ended leaves the batch, and because
one random number a token is enough (the inverse of the distribution's sum).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

_BATCH = 64


class Answer(NamedTuple):
    """ids: without the EOS. cut: it had not ended after the most tokens that were allowed."""

    ids: list[int]
    cut: bool


def sample(
    model: Any, prompts: Sequence[Sequence[int]], eos: int, most: int, temperature: float, seed: int
) -> list[Answer]:
    """One answer a prompt. A seed fixes the random number of every prompt and token, whatever the model: a difference
    between two models is then less by chance."""
    numbers = torch.rand(len(prompts), most, generator=torch.Generator().manual_seed(seed))
    answers: list[Answer] = []
    for begin in range(0, len(prompts), _BATCH):
        part = slice(begin, begin + _BATCH)
        answers += _batch(model, prompts[part], numbers[part], eos, temperature)
    return answers


@torch.inference_mode()  # type: ignore[untyped-decorator]
def _batch(model: Any, prompts: Sequence[Sequence[int]], numbers: Tensor, eos: int, temperature: float) -> list[Answer]:
    longest = max(map(len, prompts))
    ids = torch.tensor([[eos] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    written: list[list[int]] = [[] for _ in prompts]
    rows = torch.arange(len(prompts))  # those that have not ended
    cache = None
    for step in range(numbers.shape[1]):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        output = model.model(ids, attention_mask=mask, position_ids=positions, cache=cache, use_cache=True)
        cache = output.cache
        tokens = draw(model.lm_head(output.last_hidden_state[:, -1]).float() / temperature, numbers[rows, step])
        going = tokens != eos
        for row, token in zip(rows[going].tolist(), tokens[going].tolist(), strict=True):
            written[row].append(token)
        if not going.any():
            return [Answer(answer, False) for answer in written]
        if not going.all():
            cache.batch_select_indices(going.nonzero().flatten())
            rows, mask = rows[going], mask[going]
        ids = tokens[going][:, None]
        mask = torch.cat([mask, torch.ones_like(ids)], 1)
    unfinished = set(rows.tolist())
    return [Answer(answer, row in unfinished) for row, answer in enumerate(written)]


def draw(logits: Tensor, numbers: Tensor) -> Tensor:
    """A token a row: logits (B, V), numbers (B,) in [0, 1).

    >>> draw(torch.log(torch.tensor([[0.5, 0.25, 0.25]] * 3)), torch.tensor([0.4, 0.6, 0.9])).tolist()
    [0, 1, 2]
    """
    sums = torch.softmax(logits, -1).cumsum(-1)
    tokens = torch.searchsorted(sums, (numbers * sums[:, -1])[:, None], right=True)
    return tokens.flatten().clamp(max=logits.shape[-1] - 1)
