"""FIGA's loss (Guo et al., ICLR 2024, arXiv 2311.04072, §3.3, with the confidence gate of the authors' trainer).

Sees logits and the published labels and weights; knows nothing of texts, tokenizers or trainers.

    L = [ Σ_{w > 0} w · CE  +  Σ_{w < 0, CE ≤ gate} w · CE ] / N        CE = −log p(token | what precedes it)

A negative weight makes the token's probability fall. That term is not bounded below, so it counts only while the model is
still confident in the token: CE ≤ 0.6 nats is p ≥ 0.55. N is the number of terms that count.
"""

import torch
from torch import Tensor
from torch.nn import functional

IGNORE = -100
GATE = 0.6


def figa_loss(
    logits: Tensor, labels: Tensor, weights: Tensor, *, gate: float = GATE, normalizer: Tensor | float | None = None
) -> Tensor:
    """The loss of one batch, a scalar.

    logits: (B, T, V) of any float type; half precision is computed in float32. labels: (B, T) of any integer type, −100
    where there is nothing to learn. weights: (B, T), signed, as published. The shift by one happens here, as in
    transformers' models. gate: in nats; math.inf switches it off. normalizer: N over all devices and accumulated
    micro-batches, of which `figa_terms` gives each one's; without it N is this batch's own count.

    >>> logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.2, 0.2, 0.6], [1.0, 1.0, 1.0]]]))
    >>> weighted = torch.tensor([[0.0, 1.0, -0.5]])
    >>> round(figa_loss(logits, torch.tensor([[-100, 0, 2]]), weighted).item(), 4)  # (ln 2 − 0.5 · ln 1/0.6) / 2
    0.2189

    Raises ValueError when the shapes don't fit.
    """
    total, count = figa_terms(logits, labels, weights, gate=gate)
    return total / (count.clamp(min=1) if normalizer is None else normalizer)


def figa_terms(logits: Tensor, labels: Tensor, weights: Tensor, *, gate: float = GATE) -> tuple[Tensor, Tensor]:
    """Numerator and N of `figa_loss`: the sum of the terms that count, with gradients, and their number, without."""
    if logits.ndim != 3 or labels.shape != logits.shape[:2] or weights.shape != labels.shape:
        got = f"{tuple(logits.shape)}, {tuple(labels.shape)} and {tuple(weights.shape)}"
        raise ValueError(f"figa_loss: expected logits (B, T, V) with labels and weights (B, T), got {got}")
    weighted = weighted_positions(labels, weights)
    # Logits are copied and upcast only where there is a weight: with γ = 0 that is a small part of the batch.
    rows = logits[:, :-1][weighted]
    if rows.dtype in (torch.float16, torch.bfloat16):
        rows = rows.float()
    cross_entropy = functional.cross_entropy(rows, labels[:, 1:][weighted].long(), reduction="none")
    weight = weights[:, 1:][weighted].to(cross_entropy.dtype)
    counts = (weight > 0) | (cross_entropy.detach() <= gate)
    return (weight * cross_entropy)[counts].sum(), counts.sum()


def weighted_positions(labels: Tensor, weights: Tensor) -> Tensor:
    """Targets with a term before the gate: bool mask (B, T − 1), since the first token is no target."""
    return (labels[:, 1:] != IGNORE) & (weights[:, 1:] != 0)
