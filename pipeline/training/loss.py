"""FIGA's loss (Guo et al., ICLR 2024, arXiv 2311.04072, §3.3, with the confidence gate of the authors' trainer).

Sees logits and the published labels and weights; knows nothing of texts, tokenizers or trainers.

    L = [ Σ_{w > 0} w · CE  +  Σ_{w < 0, CE ≤ gate} w · CE ] / N        CE = −log p(token | what precedes it)

A negative weight makes the token's probability fall. That term is not bounded below, so it counts only while the model is
still confident in the token: CE ≤ 0.6 nats is p ≥ 0.55. N is the number of terms that count. The authors' first release let
negative terms count in a window, 0.6 ≤ CE ≤ 1.0; their later one, and this by default, below 0.6.

Their trainer divides by other counts for the signals that the paper compares with:

    constant        one weight on edited tokens, another on all others     N = all response tokens
    llm_weighted    weights per token by an LLM                            N = all response tokens
    delta           the levenshtein weights                                N = tokens with a positive weight
"""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

IGNORE = -100
GATE = 0.6
Gate = float | tuple[float, float]
Signal = Literal["levenshtein", "bag_of_words", "reward_weighted", "constant", "llm_weighted", "delta"]


def figa_loss(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    *,
    gate: Gate = GATE,
    signal: Signal = "levenshtein",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """The loss of one batch, a scalar.

    logits: (B, T, V) of any float type; half precision is computed in float32. labels: (B, T) of any integer type, −100
    where there is nothing to learn. weights: (B, T), signed, as published. The shift by one happens here, as in
    transformers' models. gate: in nats, the highest cross-entropy at which a negative term counts, or the window (low, high);
    math.inf switches it off. signal: which N, see above; the first three have the same. normalizer: N over all devices and
    accumulated micro-batches, of which `figa_terms` gives each one's; without it N is this batch's own.

    >>> logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.2, 0.2, 0.6], [1.0, 1.0, 1.0]]]))
    >>> weighted = torch.tensor([[0.0, 1.0, -0.5]])
    >>> round(figa_loss(logits, torch.tensor([[-100, 0, 2]]), weighted).item(), 4)  # (ln 2 − 0.5 · ln 1/0.6) / 2
    0.2189

    Raises ValueError when the shapes don't fit, or for an unknown signal.
    """
    total, count = figa_terms(logits, labels, weights, gate=gate, signal=signal)
    return total / (count.clamp(min=1) if normalizer is None else normalizer)


def figa_terms(
    logits: Tensor, labels: Tensor, weights: Tensor, *, gate: Gate = GATE, signal: Signal = "levenshtein"
) -> tuple[Tensor, Tensor]:
    """Numerator and N of `figa_loss`: the sum of the terms that count, with gradients, and N, without."""
    if signal not in get_args(Signal):
        raise ValueError(f"figa_loss: signal must be one of {get_args(Signal)}, got {signal!r}")
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
    low, high = gate if isinstance(gate, tuple) else (0.0, gate)
    nats = cross_entropy.detach()
    counts = (weight > 0) | ((low <= nats) & (nats <= high))
    response = labels[:, 1:] != IGNORE
    if signal in ("constant", "llm_weighted"):
        count = response.sum()
    elif signal == "delta":
        count = (response & (weights[:, 1:] > 0)).sum()
    else:
        count = counts.sum()
    return (weight * cross_entropy)[counts].sum(), count


def weighted_positions(labels: Tensor, weights: Tensor) -> Tensor:
    """Targets with a term before the gate: bool mask (B, T − 1), since the first token is no target."""
    return (labels[:, 1:] != IGNORE) & (weights[:, 1:] != 0)
