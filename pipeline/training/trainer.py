"""FIGA's loss inside transformers' Trainer, exact over devices and accumulated micro-batches.

N of the loss, the number of terms that the gate lets through, must be that of the whole optimiser step, on all devices.
But the gate depends on the logits, so N is known only after the last micro-batch's forward pass, when the first ones'
gradients are already computed. The gradient is linear in 1/N, hence:

1. Every micro-batch's sum is divided by M, the number of weighted tokens of the whole step before the gate: known from
   the labels, summed over devices.
2. After the last backward pass, when the gradients are summed over devices, and before clipping, they are multiplied
   by M/N, N being the sum of all micro-batches' and devices' counts.

So the gradient, its clipping and the logged loss equal those of one device that takes the whole step as one batch, up to
rounding. M in place of 1 keeps half-precision gradients in range. An evaluation's loss is the mean of its batches' losses.
"""

from typing import Any

import torch
from transformers import Trainer

from pipeline.errors import UsageError
from pipeline.storage import stopping
from pipeline.training.collator import COLUMNS
from pipeline.training.loss import GATE, Gate, Signal, figa_terms, weighted_positions

Batch = dict[str, torch.Tensor]


class FigaTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped here
    """transformers' Trainer with FIGA's loss. Takes `gate` and `signal`, as `figa_loss` does, on top of Trainer's arguments.

        trainer = FigaTrainer(model, TrainingArguments("out"), FigaCollator(pad_id), train_dataset=pairs)

    `train_dataset` has the published columns or those of the `sequences` export. Over another trainer: see `trl_recipe`.
    """

    # Trainer must not divide by the number of micro-batches: `compute_loss` divides by the count of the whole step.
    loss_is_scaled_for_ga = True

    def __init__(self, *args: Any, gate: Gate = GATE, signal: Signal = "levenshtein", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gate, self.signal = gate, signal
        self._begin_step()
        if self.is_deepspeed_enabled:
            why = "which needs access to gradients that DeepSpeed hides: use FSDP"
            raise UsageError(f"FIGA's loss is normalised after the gate, {why}")

    def _begin_step(self) -> None:
        self._counted: torch.Tensor | int = 0
        self._summed: torch.Tensor | float = 0.0

    def _set_signature_columns_if_needed(self) -> None:
        # Trainer and TRL drop columns that the model's forward doesn't name; these are the collator's.
        self._signature_columns = [*COLUMNS, "input_ids", "labels", "loss_weights"]

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: torch.device) -> torch.Tensor:
        """M, a scalar: the weighted tokens of all micro-batches and devices, before the gate; at least 1."""
        counts = [weighted_positions(batch["labels"], batch["loss_weights"]).sum() for batch in batch_samples]
        count = torch.stack(counts).sum() if counts else torch.zeros((), dtype=torch.int64)
        return self.accelerator.gather(count.to(device)).sum().clamp(min=1)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """A micro-batch's share of the loss, in a training step; else the batch's own loss."""
        stopping.check()
        features = {name: value for name, value in inputs.items() if name not in ("labels", "loss_weights")}
        outputs = model(**features, use_cache=False)
        labels, weights = inputs["labels"], inputs["loss_weights"]
        total, count = figa_terms(outputs.logits, labels, weights, gate=self.gate, signal=self.signal)
        if model.training and num_items_in_batch is not None:
            self._counted = self._counted + count
            # DDP and FSDP average the gradients over processes; the factor turns the average into a sum.
            loss = total * (self.accelerator.num_processes / num_items_in_batch)
        else:
            loss = total / count.clamp(min=1)
        return (loss, outputs) if return_outputs else loss

    def training_step(
        self, model: torch.nn.Module, inputs: Batch, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """One micro-batch, forward and backward; the last one of a step corrects gradients and logged loss by M/N."""
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        before, self._summed = self._summed, self._summed + loss
        if num_items_in_batch is None or not self.accelerator.sync_gradients:
            return loss
        counted = self.accelerator.gather(torch.as_tensor(self._counted, device=loss.device)).sum().clamp(min=1)
        ratio = num_items_in_batch / counted
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(ratio.to(parameter.grad.device))
        corrected = self._summed * ratio - before
        self._begin_step()
        return corrected
