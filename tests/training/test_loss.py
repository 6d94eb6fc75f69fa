"""figa_loss against a plain per-token reference, the authors' own figures, and the limits of its input."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from pipeline.training import figa_loss  # noqa: E402
from pipeline.training.loss import figa_terms  # noqa: E402

OFFICIAL = os.environ.get("FIGA_OFFICIAL")


def reference(logits: Any, labels: Any, weights: Any, gate: float) -> Any:
    """The definition, token by token."""
    terms = []
    for row in range(labels.shape[0]):
        for position in range(1, labels.shape[1]):
            label, weight = int(labels[row, position]), float(weights[row, position])
            if label == -100 or weight == 0:
                continue
            before = logits[row, position - 1]
            cross_entropy = torch.logsumexp(before, 0) - before[label]
            if weight < 0 and cross_entropy.item() > gate:
                continue
            terms.append(weight * cross_entropy)
    return torch.stack(terms).sum() / len(terms) if terms else logits.sum() * 0


def batch(seed: int, rows: int = 4, length: int = 9, vocabulary: int = 11) -> tuple[Any, Any, Any]:
    """Logits that are often confident in the label, so that the gate opens and closes; −100 and zero weights mixed in."""
    made = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, length, vocabulary, generator=made, dtype=torch.float64)
    labels = torch.randint(0, vocabulary, (rows, length), generator=made)
    sure = torch.rand(rows, length - 1, generator=made, dtype=torch.float64) * 8
    logits[:, :-1].scatter_add_(2, labels[:, 1:, None], sure[..., None])
    values = torch.tensor([1.0, 0.25, 0.0, -0.5, -1.5])
    weights = values[torch.randint(0, len(values), (rows, length), generator=made)]
    labels[torch.rand(rows, length, generator=made) < 0.3] = -100
    return logits.requires_grad_(), labels, weights


@pytest.mark.parametrize("gate", [0.0, 0.1, 0.6, 2.0, math.inf])
@pytest.mark.parametrize("seed", range(5))
def test_value_and_gradient_equal_the_reference(seed: int, gate: float) -> None:
    logits, labels, weights = batch(seed)
    ours, plain = figa_loss(logits, labels, weights, gate=gate), reference(logits, labels, weights, gate)
    assert ours.shape == () and ours.dtype == torch.float64
    assert ours.item() == pytest.approx(plain.item(), abs=1e-12)
    gradient, expected = (torch.autograd.grad(loss, logits)[0] for loss in (ours, plain))
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


def test_the_gradient_is_the_loss_s_own() -> None:
    logits, labels, weights = batch(7, rows=2, length=5, vocabulary=6)
    assert torch.autograd.gradcheck(lambda x: figa_loss(x, labels, weights), (logits,))


def test_the_gate_decides_on_negative_terms_only_and_leaves_them_out_of_n() -> None:
    # Token 1 has p = 0.5, 0.69 nats: over the gate of 0.6. Token 0 of p = 0.6, 0.51 nats, is under it.
    p = [[0.6, 0.2, 0.2], [0.25, 0.5, 0.25], [0.8, 0.1, 0.1], [1, 1, 1]]
    logits = torch.tensor(p, dtype=torch.float64).log()[None]
    labels = torch.tensor([[-100, 0, 1, 1]])
    good, gated = math.log(10), math.log(1 / 0.6)
    loss = figa_loss(logits, labels, torch.tensor([[0, -0.5, -0.5, 1.0]]))
    assert loss.item() == pytest.approx((good - 0.5 * gated) / 2, abs=1e-12)
    assert figa_terms(logits, labels, torch.tensor([[0, -0.5, -0.5, 1.0]]))[1].item() == 2
    ungated = figa_loss(logits, labels, torch.tensor([[0, -0.5, -0.5, 1.0]]), gate=math.inf)
    assert ungated.item() == pytest.approx((good - 0.5 * gated - 0.5 * math.log(2)) / 3, abs=1e-12)


def test_the_gate_can_be_a_window() -> None:
    logits, labels, weights = batch(9)
    whole = [figa_loss(logits, labels, weights, gate=gate).item() for gate in (0.6, (0.0, 0.6))]
    assert whole[0] == whole[1]
    # The authors' first release: negative terms between 0.6 and 1.0 nats. What is below is out, what is inside is in.
    negative = torch.tensor([[0, -0.5, -0.5]])
    p = [[0.6, 0.2, 0.2], [0.25, 0.5, 0.25], [1, 1, 1]]
    two = torch.tensor(p, dtype=torch.float64).log()[None], torch.tensor([[-100, 0, 1]]), negative
    assert figa_loss(*two, gate=(0.6, 1.0)).item() == pytest.approx(-0.5 * math.log(2), abs=1e-12)
    assert figa_loss(*two, gate=(0.0, 0.6)).item() == pytest.approx(-0.5 * math.log(1 / 0.6), abs=1e-12)


def test_the_authors_other_signals_divide_by_other_counts() -> None:
    logits, labels, weights = batch(10)
    total, counted = figa_terms(logits, labels, weights)
    response, positive = (labels[:, 1:] != -100), weights[:, 1:] > 0
    numbers = {
        "levenshtein": counted,
        "constant": response.sum(),
        "llm_weighted": response.sum(),
        "delta": (response & positive).sum(),
    }
    assert len({int(number) for number in numbers.values()}) == 3
    for signal, number in numbers.items():
        loss = figa_loss(logits, labels, weights, signal=signal)
        assert loss.item() == pytest.approx((total / number).item(), abs=1e-12)
    with pytest.raises(ValueError, match="signal must be one of"):
        figa_loss(logits, labels, weights, signal="sft")


def test_a_batch_in_which_nothing_counts_costs_nothing() -> None:
    logits, labels, weights = batch(1)
    for nothing in (torch.zeros_like(weights), -weights.abs()):
        loss = figa_loss(logits, labels, nothing, gate=0.0)
        assert loss.item() == 0
        assert not torch.autograd.grad(loss, logits)[0].any()


def test_the_first_position_and_ignored_labels_have_no_term() -> None:
    logits, labels, weights = batch(2)
    changed = weights.clone()
    changed[:, 0] = 9
    changed[labels == -100] = 9
    assert figa_loss(logits, labels, changed).item() == figa_loss(logits, labels, weights).item()


def test_infinite_logits_where_nothing_is_weighted_do_no_harm() -> None:
    logits, labels, weights = batch(3)
    poisoned = logits.detach().clone()
    poisoned[:, -1] = math.nan
    poisoned[:, :-1][(labels[:, 1:] == -100) | (weights[:, 1:] == 0)] = math.inf
    assert figa_loss(poisoned, labels, weights).item() == figa_loss(logits, labels, weights).item()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype: str) -> None:
    logits, labels, weights = batch(4)
    half = logits.detach().to(getattr(torch, dtype)).requires_grad_()
    loss = figa_loss(half, labels, weights)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(figa_loss(half.double(), labels, weights).item(), rel=1e-6)
    assert torch.autograd.grad(loss, half)[0].dtype == half.dtype


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32"])
def test_labels_of_the_published_type_are_taken(dtype: str) -> None:
    logits, labels, weights = batch(8)
    assert (
        figa_loss(logits, labels.to(getattr(torch, dtype)), weights).item() == figa_loss(logits, labels, weights).item()
    )


def test_parts_with_the_count_of_the_whole_add_up_to_the_whole() -> None:
    logits, labels, weights = batch(5)
    whole = figa_loss(logits, labels, weights)
    count = figa_terms(logits, labels, weights)[1]
    parts = [figa_loss(logits[i:j], labels[i:j], weights[i:j], normalizer=count) for i, j in ((0, 1), (1, 4))]
    assert sum(parts).item() == pytest.approx(whole.item(), abs=1e-12)
    mean_of_means = (
        figa_loss(logits[:1], labels[:1], weights[:1]) + figa_loss(logits[1:], labels[1:], weights[1:])
    ) / 2
    assert mean_of_means.item() != pytest.approx(whole.item(), abs=1e-3)


def test_shapes_that_do_not_fit_are_named() -> None:
    logits, labels, weights = batch(6)
    with pytest.raises(ValueError, match=r"labels and weights \(B, T\), got \(4, 9, 11\), \(4, 8\) and \(4, 9\)"):
        figa_loss(logits, labels[:, 1:], weights)
    with pytest.raises(ValueError, match=r"\(4, 9\) and \(9,\)"):
        figa_loss(logits, labels, weights[0])


@pytest.mark.skipif(not OFFICIAL, reason="FIGA_OFFICIAL does not name the authors' figa_official.json")
def test_the_losses_of_the_authors_trainer() -> None:
    cases = json.loads(Path(str(OFFICIAL)).read_text("utf-8"))
    assert cases
    for case in cases:
        logits = torch.tensor(case["logits"], dtype=torch.float64)
        weights = torch.tensor(case["official_mask"], dtype=torch.float64)
        # In their mask of an initial answer −1 stands for −β, and 1 for its EOS, whose weight is 0.
        weights[1::2] = weights[1::2].clamp(max=0) * 0.5
        labels = torch.tensor(case["labels"])
        loss = figa_loss(logits, labels, weights)
        assert loss.item() == pytest.approx(case["loss"], abs=1e-6)
        # The numerator is the same for their other signals, which divide by what the masks count.
        total, _ = figa_terms(logits, labels, weights)
        for signal, count in (
            ("constant", (labels[:, 1:] != -100).sum()),
            ("delta", ((torch.tensor(case["official_mask"])[:, 1:] == 1) & (weights[:, 1:] > 0)).sum()),
        ):
            other = figa_loss(logits, labels, weights, signal=signal)
            assert other.item() == pytest.approx((total / count.clamp(min=1)).item(), abs=1e-12)
