"""FIGA's loss in TRL's SFTTrainer, two ways.

    figa build --source demo --out out/demo
    python -m examples.trl.train                        # FigaSFTTrainer: exact over micro-batches and devices
    python -m examples.trl.train --trainer per-token    # a per-token loss, as TRL's own examples write one

Needs pip install 'figa-pipeline[train]'. The model is tiny and random; with --model ID the labels must be of its tokenizer.
"""

import argparse
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

import pipeline
from examples.tiny import COLUMNS, tiny_model
from pipeline.labels.loading import open_plain
from pipeline.training import FigaCollator, figa_loss
from pipeline.training.trl_recipe import FigaSFTTrainer, figa_arguments


class PerTokenLossTrainer(SFTTrainer):
    """SFTTrainer with a loss of its own over the logits: since TRL 1.16 `compute_loss` is the place, not `compute_loss_func`.

    The loss is normalised within a micro-batch, so it changes with `gradient_accumulation_steps`; FigaSFTTrainer's does not.
    """

    def _set_signature_columns_if_needed(self) -> None:
        # What the collator reads; SFTTrainer would drop the weights.
        self._signature_columns = ["input_ids", "labels", "loss_weights"]

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels, weights = inputs.pop("labels"), inputs.pop("loss_weights")
        outputs = model(**inputs, use_cache=False)
        loss = figa_loss(outputs.logits, labels, weights) / self.current_gradient_accumulation_steps
        return (loss, outputs) if return_outputs else loss


TRAINERS = {"figa": FigaSFTTrainer, "per-token": PerTokenLossTrainer}


def main(argv: list[str] | None = None) -> list[float]:
    """Train; returns the logged losses."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", default="out/demo", help="output folder of a finished run (default out/demo)")
    p.add_argument("--model", help="folder or Hub id; default: a tiny model with random weights")
    p.add_argument("--trainer", choices=TRAINERS, default="figa")
    p.add_argument("--out", default="out/trl")
    p.add_argument("--steps", type=int, default=30)
    arguments = p.parse_args(argv)
    data = pipeline.open_dataset(arguments.data)
    labels = data.manifest["labels"]
    rows, eos = data.to_table(COLUMNS).to_pylist(), labels["eos_id"]
    tokenizer: PreTrainedTokenizerFast = open_plain(arguments.model or labels["tokenizer"])
    torch.manual_seed(0)
    if arguments.model:
        model = AutoModelForCausalLM.from_pretrained(arguments.model)
    else:
        model, rows, eos = tiny_model(rows, eos)
    names = {"input_ids": "input_ids", "labels": "labels", "weights": "loss_weights"}
    sequences = [
        {name: row[f"{side}_{kind}"] for kind, name in names.items()} for row in rows for side in ("revised", "initial")
    ]
    trainer = TRAINERS[arguments.trainer](
        model,
        SFTConfig(
            arguments.out,
            learning_rate=1e-5 if arguments.model else 3e-3,
            max_steps=arguments.steps,
            per_device_train_batch_size=8,
            logging_steps=5,
            save_strategy="no",
            report_to=[],
            use_cpu=not torch.accelerator.is_available(),
            **figa_arguments(),
        ),
        data_collator=FigaCollator(eos),
        train_dataset=Dataset.from_list(sequences),
        processing_class=tokenizer,
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


if __name__ == "__main__":
    main()
