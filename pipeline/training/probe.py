"""How likely a model finds the tokens that FIGA teaches: measured before and after training."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.nn import functional

from pipeline.training.loss import weighted_positions


def edit_logprobs(model: torch.nn.Module, batches: Iterable[dict[str, torch.Tensor]]) -> dict[str, float]:
    """Mean log-probability, in nats, of the tokens with a positive weight (`good`) and a negative one (`bad`).

    batches: as `FigaCollator` returns them. A mean over no token is NaN. The model keeps its mode, train or eval.
    """
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    parts: dict[str, list[torch.Tensor]] = {"good": [], "bad": []}
    with torch.inference_mode():
        for batch in batches:
            on_device = {name: tensor.to(device) for name, tensor in batch.items()}
            labels, weights = on_device.pop("labels"), on_device.pop("loss_weights")
            weighted = weighted_positions(labels, weights)
            logits = model(**on_device, use_cache=False).logits[:, :-1][weighted].float()
            logprobs = -functional.cross_entropy(logits, labels[:, 1:][weighted], reduction="none")
            good = weights[:, 1:][weighted] > 0
            parts["good"].append(logprobs[good])
            parts["bad"].append(logprobs[~good])
    model.train(was_training)
    return {name: torch.cat(values).mean().item() if values else float("nan") for name, values in parts.items()}
