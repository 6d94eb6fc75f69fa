"""From a published data set to trained top layers: the same optimiser, steps and sequences a step for every method."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import pipeline
from pipeline.errors import RowReject
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.training.loss import IGNORE
from tests.replication.methods import Method, Sequence_, dpo, logprobs
from tests.replication.policy import Policy

SIDES = ("revised", "initial", "reference")
_PARTS = ("input_ids", "labels", "weights")
# Of a data set, what is trained on.
COLUMNS = ["messages", "reference", *(f"{side}_{part}" for side in SIDES[:2] for part in _PARTS)]
Pairs = list[dict[str, Sequence_]]


@dataclass(frozen=True, slots=True)
class Budget:
    """sequences: of an optimiser step; a method that feeds both answers of a pair takes half as many pairs."""

    steps: int
    sequences: int
    max_length: int


def read_pairs(folder: Path, policy: Policy, tokenizer: LabelTokenizer, max_length: float) -> Pairs:
    """Each pair's three answers behind the same prompt. Left out: pairs of which one is longer than `max_length` tokens.

    The reference is tokenised as the label stage would do it. Call it with the policy at its start.
    """
    found: list[dict[str, tuple[list[int], list[int], list[float]]]] = []
    for row in pipeline.open_dataset(folder).to_table(COLUMNS).to_pylist():
        answers = {side: tuple(row[f"{side}_{part}"] for part in _PARTS) for side in SIDES[:2]}
        try:
            (reference,) = tokenizer.tokenize(row["messages"], row["reference"])
        except RowReject:
            continue
        labels = [IGNORE] * reference.prompt_length + reference.response_ids
        answers["reference"] = (reference.ids, labels, [float(label != IGNORE) for label in labels])
        if max(len(ids) for ids, _, _ in answers.values()) <= max_length:
            found.append(answers)
    hidden = iter(policy.trunk([answers[side][0] for answers in found for side in SIDES]))
    return [
        {side: Sequence_(next(hidden), torch.tensor(a[side][1]), torch.tensor(a[side][2])) for side in SIDES}
        for a in found
    ]


def with_start(pairs: Pairs, policy: Policy) -> Pairs:
    """The same with each answer's log-probability under the policy as it is now."""
    known = []
    for pair in pairs:
        with torch.no_grad():
            rows = [pair[side] for side in SIDES[:2]]
            values = logprobs(policy, rows, policy.top([row.hidden for row in rows])).tolist()
        started = {s: replace(pair[s], start_logprob=v) for s, v in zip(SIDES[:2], values, strict=True)}
        known.append({**pair, **started})
    return known


def train(policy: Policy, pairs: Pairs, method: Method, budget: Budget, rate: float, seed: int) -> dict[str, Any]:
    """Train the policy's top layers from their start; what it cost and how the loss went."""
    parameters = policy.restart()
    if method.loss is dpo:
        pairs = with_start(pairs, policy)
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    losses, tokens = [], 0
    batches = _batches(len(pairs), budget.sequences // len(method.sides), seed)
    for _ in range(budget.steps):
        rows = [pairs[i][side] for i in next(batches) for side in method.sides]
        loss = method.loss(policy, rows, policy.top([row.hidden for row in rows]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(round(loss.item(), 5))
        tokens += sum(len(row.labels) for row in rows)
    return {"tokens": tokens, "losses": losses}


def _batches(count: int, size: int, seed: int) -> Iterator[list[int]]:
    """Endless: every pair once before any comes again."""
    rng = random.Random(seed)
    queue: list[int] = []
    while True:
        while len(queue) < size:
            queue += rng.sample(range(count), count)
        yield queue[:size]
        del queue[:size]
