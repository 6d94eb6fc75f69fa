"""One training run, from an opened data set to a saved model, measured before and after."""

import json
import math
import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
import torch
import transformers
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments, set_seed

from pipeline import __version__
from pipeline.dataset.manifest import lineage
from pipeline.dataset.open import PairDataset
from pipeline.errors import ConfigError, CurationError, ModelUnavailable, UsageError
from pipeline.labels.loading import difference, open_tokenizer, settings_of
from pipeline.storage.atomic import remove, write_text
from pipeline.text import one_line
from pipeline.training.collator import COLUMNS, SIDES, FigaCollator
from pipeline.training.loss import Gate, weighted_positions
from pipeline.training.trainer import FigaTrainer

if TYPE_CHECKING:
    import datasets

SUMMARY = "training.json"
_PROBED_PAIRS = 32
_CHECKED_PAIRS = 64


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of a run. Their meanings and defaults are those of the command line's options."""

    model: str
    out: Path
    epochs: float
    max_steps: int | None
    lr: float
    batch_size: int
    micro_batch_size: int
    max_length: int | None
    gate: Gate | None
    precision: str
    gradient_checkpointing: bool
    seed: int
    resume: bool


def train(dataset: PairDataset, recipe: Recipe) -> dict[str, Any]:
    """Train; write model, tokenizer and training.json into `recipe.out`; return the latter's content.

    Raises UsageError (settings), ConfigError (another tokenizer), ModelUnavailable, CurationError (loss no longer a number).
    """
    # Processes of torchrun, or the devices that one process drives.
    devices = int(os.environ.get("WORLD_SIZE") or max(1, torch.cuda.device_count()))
    micro, accumulated = cut(recipe.batch_size, recipe.micro_batch_size, devices)
    _check_tokenizer(dataset, recipe.model)
    max_length = recipe.max_length or dataset.manifest["labels"]["max_length"]
    pairs, left_out = training_pairs(dataset, max_length)
    trainer = _trainer(dataset, pairs, recipe, micro, accumulated)
    if (joined := trainer.accelerator.num_processes * max(1, trainer.args.n_gpu)) != devices:
        raise UsageError(f"{devices} devices exist and {joined} take part: start one process per device, with torchrun")
    if trainer.is_world_process_zero():
        over = f" ({left_out} with over {max_length} tokens are left out)" if left_out else ""
        size = f"{recipe.batch_size} a step: {devices} × {micro} × {accumulated} micro-batches"
        print(f"{len(pairs)} pairs{over}, {size}, {trainer.args.device.type}", flush=True)
    probed = [trainer.data_collator([row]) for row in pairs.select(range(min(len(pairs), _PROBED_PAIRS)))]
    before = edit_logprobs(trainer.model, probed)
    result = _fit(trainer, recipe)
    gate = "off" if trainer.gate == math.inf else trainer.gate
    summary = {
        "format": "figa-training",
        "version": __version__,
        "settings": asdict(recipe) | {"out": None, "gate": gate, "max_length": max_length, "devices": devices},
        "pairs": {"trained": len(pairs), "left_out": left_out},
        "steps": result.global_step,
        "loss": result.training_loss,
        "edit_logprobs": {"pairs": len(probed), "before": before, "after": edit_logprobs(trainer.model, probed)},
        "lineage": lineage(dataset.manifest),
        "libraries": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    _save(trainer, recipe, summary)
    return summary


def training_pairs(dataset: PairDataset, max_length: int) -> "tuple[datasets.Dataset, int]":
    """The collator's columns without pairs over `max_length` tokens, and how many those are. UsageError when none is left."""
    pairs = dataset.to_datasets(COLUMNS)
    fit = np.flatnonzero(_lengths(pairs) <= max_length)
    if not len(fit):
        why = f"all {len(pairs)} are longer than {max_length} tokens" if len(pairs) else "the data set is empty"
        raise UsageError(f"{dataset.root}: no pair to train on: {why}")
    return (pairs if len(fit) == len(pairs) else pairs.select(fit)), len(pairs) - len(fit)


def _lengths(pairs: "datasets.Dataset") -> Any:
    """Tokens of each pair's longer sequence, int32 of shape (pairs,)."""
    table = pairs.with_format("arrow")[:]
    return np.maximum(*(pc.list_value_length(table[f"{side}_input_ids"]).to_numpy() for side in SIDES))


def _check_tokenizer(dataset: PairDataset, model: str) -> None:
    """Raise ConfigError for a model whose tokenizer is not the labels'."""
    labels = dataset.manifest["labels"]
    try:
        tokenizer = open_tokenizer(model, settings_of(labels))
    except ConfigError as error:
        raise ConfigError(f"--model {model}: {error}") from None
    if difference(labels, tokenizer) is None:
        return
    # Fingerprints also differ for harmless reasons, such as another version of the library: compare ids.
    table = dataset.to_table(["id", "messages", "revised", "initial", *(f"{side}_input_ids" for side in SIDES)])
    chosen = np.unique(np.linspace(0, max(table.num_rows - 1, 0), _CHECKED_PAIRS, dtype=np.int64))
    for row in table.take(chosen).to_pylist() if table.num_rows else []:
        if not tokenizer.tokenize_published(row):
            what = f"{dataset.root}: its labels are for the tokenizer {labels['tokenizer']}"
            differs = f"that of {model} gives other tokens, first seen in pair {row['id']}"
            hint = f"Relabel it, which calls no model: figa relabel {dataset.root} --tokenizer {model} --out NEW"
            raise ConfigError(f"{what}; {differs}. {hint}")


def edit_logprobs(model: torch.nn.Module, batches: Iterable[dict[str, torch.Tensor]]) -> dict[str, float]:
    """Mean log-probability, in nats, of tokens with positive weight (`good`) and negative (`bad`); NaN over no token."""
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    parts: list[tuple[torch.Tensor, torch.Tensor]] = []
    with torch.inference_mode():
        for batch in batches:
            on_device = {name: tensor.to(device) for name, tensor in batch.items()}
            labels, weights = on_device.pop("labels"), on_device.pop("loss_weights")
            weighted = weighted_positions(labels, weights)
            logits = model(**on_device, use_cache=False).logits[:, :-1][weighted].float()
            logprobs = -functional.cross_entropy(logits, labels[:, 1:][weighted], reduction="none")
            good = weights[:, 1:][weighted] > 0
            parts.append((logprobs[good], logprobs[~good]))
    model.train(was_training)
    means = [torch.cat(values).mean().item() for values in zip(*parts, strict=True)] or [math.nan, math.nan]
    return dict(zip(("good", "bad"), means, strict=True))


def _fit(trainer: FigaTrainer, recipe: Recipe) -> Any:
    try:
        result = trainer.train(resume_from_checkpoint=recipe.resume or None)
    except torch.OutOfMemoryError as error:
        full = f"the device's memory is full ({str(error).splitlines()[0]})"
        hint = "lower --micro-batch-size, which does not change the result, or give --gradient-checkpointing"
        raise CurationError(f"{full}: {hint}") from None
    if not math.isfinite(result.training_loss):
        raise CurationError(f"the loss became {result.training_loss} by step {result.global_step}: lower --lr")
    return result


def _save(trainer: FigaTrainer, recipe: Recipe, summary: dict[str, Any]) -> None:
    """Write model, tokenizer and, last, the summary; delete the checkpoints, which are no longer needed."""
    trainer.save_model()
    if not trainer.is_world_process_zero():
        return
    AutoTokenizer.from_pretrained(recipe.model, trust_remote_code=False).save_pretrained(recipe.out)
    # A pickle of Trainer's arguments, which nothing reads.
    remove(recipe.out / "training_args.bin")
    for checkpoint in recipe.out.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    write_text(recipe.out / SUMMARY, json.dumps(summary, indent=2) + "\n")
    before, after = (summary["edit_logprobs"][when] for when in ("before", "after"))
    print(f"{summary['steps']} steps, mean loss {summary['loss']:.4f}")
    print(f"mean log-probability of {summary['edit_logprobs']['pairs']} pairs' tokens, before and after")
    for kind, title in (("good", "added by the revision"), ("bad", "removed by it")):
        print(f"  {title:<28}{before[kind]:8.3f}{after[kind]:8.3f}")
    print(f"model   {recipe.out}\nsummary {recipe.out / SUMMARY}")


def _trainer(
    dataset: PairDataset, pairs: "datasets.Dataset", recipe: Recipe, micro: int, accumulated: int
) -> FigaTrainer:
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    set_seed(recipe.seed)
    labels = dataset.manifest["labels"]
    return FigaTrainer(
        _load(recipe.model, pairs),
        _arguments(recipe, micro, accumulated),
        FigaCollator(labels["eos_id"], pad_to_multiple_of=8),
        train_dataset=pairs,
        gate=labels["gate"] if recipe.gate is None else recipe.gate,
    )


def cut(batch_size: int, micro_batch_size: int, devices: int) -> tuple[int, int]:
    """Pairs per micro-batch, micro-batches per step and device. UsageError when devices can't share the batch equally."""
    if batch_size % devices:
        raise UsageError(f"--batch-size {batch_size}: must be a multiple of the number of devices, {devices}")
    share = batch_size // devices
    micro = max(size for size in range(1, min(micro_batch_size, share) + 1) if share % size == 0)
    return micro, share // micro


def _load(name: str, pairs: "datasets.Dataset") -> Any:
    """The model with float32 weights, which small optimiser steps need; bf16 is for the arithmetic alone."""
    try:
        # Only safetensors: the older files are pickles.
        options = {"trust_remote_code": False, "use_safetensors": True, "dtype": torch.float32}
        model = AutoModelForCausalLM.from_pretrained(name, **options)
    except (OSError, ValueError, KeyError) as error:
        raise ModelUnavailable(f"--model {name}: can't be loaded as a folder or Hub id: {one_line(error)}") from None
    longest, positions = int(_lengths(pairs).max()), getattr(model.config, "max_position_embeddings", None)
    if positions and longest > positions:
        hint = f"--max-length {positions} leaves out the pairs that don't fit"
        raise UsageError(f"--model {name}: takes {positions} tokens, the longest sequence has {longest}; {hint}")
    table = pairs.with_format("arrow")[:]
    largest = max(pc.max(pc.list_flatten(table[f"{side}_input_ids"])).as_py() for side in SIDES)
    embeddings = model.get_input_embeddings().num_embeddings
    if largest >= embeddings:
        raise UsageError(f"--model {name}: has embeddings for {embeddings} tokens, the labels name token {largest}")
    return model


def _arguments(recipe: Recipe, micro: int, accumulated: int) -> TrainingArguments:
    supported = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return TrainingArguments(
        output_dir=str(recipe.out),
        # Otherwise processes on a machine without an accelerator would each train alone.
        use_cpu=not torch.accelerator.is_available(),
        num_train_epochs=recipe.epochs,
        max_steps=recipe.max_steps or -1,
        learning_rate=recipe.lr,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulated,
        bf16=recipe.precision == "bf16" or (recipe.precision == "auto" and supported),
        activation_checkpointing=recipe.gradient_checkpointing,
        save_strategy="epoch",
        save_total_limit=1,
        logging_steps=1,
        # Otherwise a loss that is no number would be logged as the mean of those before it.
        logging_nan_inf_filter=False,
        # Costs a pass over the graph and fails with checkpointing; every parameter of a language model is used.
        ddp_find_unused_parameters=False,
        report_to=[],
        disable_tqdm=not sys.stderr.isatty(),
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=recipe.seed,
    )
