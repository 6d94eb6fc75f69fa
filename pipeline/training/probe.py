"""What training did to the tokens it was about."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.nn import functional

from pipeline.training.loss import weighted_positions


def edit_logprobs(model: torch.nn.Module, batches: Iterable[dict[str, torch.Tensor]]) -> dict[str, float]:
    """Mean log-probability, in nats, of the tokens with a positive weight (`good`) and a negative one (`bad`).

    `batches` are `FigaCollator`'s. A mean over no token is NaN. The model is left in the mode, train or eval, it was in.
    """
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    found: dict[str, list[torch.Tensor]] = {"good": [], "bad": []}
    with torch.inference_mode():
        for batch in batches:
            on_device = {name: tensor.to(device) for name, tensor in batch.items()}
            labels, weights = on_device.pop("labels"), on_device.pop("loss_weights")
            weighted = weighted_positions(labels, weights)
            logits = model(**on_device, use_cache=False).logits[:, :-1][weighted].float()
            logprobs = -functional.cross_entropy(logits, labels[:, 1:][weighted], reduction="none")
            good = weights[:, 1:][weighted] > 0
            found["good"].append(logprobs[good])
            found["bad"].append(logprobs[~good])
    model.train(was_training)
    return {name: torch.cat(parts).mean().item() if parts else float("nan") for name, parts in found.items()}
