"""What is compared: which sequences of a pair, which loss. The learning rate is chosen for each; all else is the same.

Losses see the top's hidden states of a step's sequences; the head is applied only where a loss looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.training import figa_loss
from pipeline.training.loss import GATE, IGNORE
from tests.replication.policy import Policy

DPO_BETA = 0.1


@dataclass(frozen=True, slots=True)
class Sequence_:
    """One answer behind its prompt: the trunk's output (T, width), labels (T,) and FIGA's weights (T,).

    start_logprob: of the whole answer under the starting policy; DPO alone needs it.
    """

    hidden: Tensor
    labels: Tensor
    weights: Tensor
    start_logprob: float = 0.0


# Takes the policy, the sequences of a step and their hidden states from the top.
Loss = Callable[[Policy, Sequence[Sequence_], Tensor], Tensor]


def figa(policy: Policy, rows: Sequence[Sequence_], hidden: Tensor, gate: float | tuple[float, float] = GATE) -> Tensor:
    """FIGA's loss by `pipeline.training.figa_loss`, with logits for the weighted tokens only.

    They are laid end to end as one sequence whose i-th logits predict its (i + 1)-th token, which is that loss's contract.
    """
    states, labels, weights = _laid_out(rows, hidden, [row.weights for row in rows])
    logits = policy.head(torch.cat([states, states[-1:]]))[None]
    before = torch.tensor([IGNORE]), torch.zeros(1)
    return figa_loss(logits, torch.cat([before[0], labels])[None], torch.cat([before[1], weights])[None], gate=gate)


def sft(policy: Policy, rows: Sequence[Sequence_], hidden: Tensor) -> Tensor:
    """Cross-entropy, averaged over all tokens of the answers."""
    states, labels, _ = _laid_out(rows, hidden, _everywhere(rows))
    return functional.cross_entropy(policy.head(states), labels)


def dpo(policy: Policy, rows: Sequence[Sequence_], hidden: Tensor) -> Tensor:
    """Rafailov et al., 2023, arXiv 2305.18290. `rows` alternate: revised (chosen), initial (rejected)."""
    start = torch.tensor([row.start_logprob for row in rows])
    gain = (logprobs(policy, rows, hidden) - start).view(-1, 2)
    return -functional.logsigmoid(DPO_BETA * (gain[:, 0] - gain[:, 1])).mean()


def logprobs(policy: Policy, rows: Sequence[Sequence_], hidden: Tensor) -> Tensor:
    """log p of each answer, EOS included, given its prompt: shape (B,)."""
    states, labels, _ = _laid_out(rows, hidden, _everywhere(rows))
    each = -functional.cross_entropy(policy.head(states), labels, reduction="none")
    lengths = [int((row.labels[1:] != IGNORE).sum()) for row in rows]
    return torch.stack([part.sum() for part in each.split(lengths)])


def _everywhere(rows: Sequence[Sequence_]) -> list[Tensor]:
    return [torch.ones_like(row.weights) for row in rows]


def _laid_out(rows: Sequence[Sequence_], hidden: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Of every token that counts, row by row: the state that predicts it, the token, its weight."""
    states, labels, kept = [], [], []
    for row, state, weight in zip(rows, hidden, weights, strict=True):
        counts = (row.labels[1:] != IGNORE) & (weight[1:] != 0)
        states.append(state[: len(row.labels) - 1][counts])
        labels.append(row.labels[1:][counts])
        kept.append(weight[1:][counts])
    return torch.cat(states), torch.cat(labels), torch.cat(kept)


@dataclass(frozen=True, slots=True)
class Method:
    """sides: which answers of a pair are fed, in this order."""

    sides: tuple[str, ...]
    loss: Loss


BOTH = ("revised", "initial")
METHODS = {
    "figa": Method(BOTH, figa),
    "sft-reference": Method(("reference",), sft),
    "sft-revision": Method(("revised",), sft),
    "dpo": Method(BOTH, dpo),
}
