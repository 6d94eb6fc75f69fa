"""Train a language model on published pairs with FIGA's loss: a loop to copy into a trainer of your own.

    figa build --source demo --out out/demo                                   # seconds, no model, no network
    python -m examples.torch_loop.train                                             # a tiny random model, about a minute
    python -m examples.torch_loop.train --model Qwen/Qwen2.5-Coder-0.5B-Instruct    # one whose tokenizer the labels are of

Needs torch: pip install 'figa-pipeline[train]'. `figa train` is the whole trainer, with checkpoints and evaluation.
"""

import argparse
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM

import pipeline
from examples.tiny import COLUMNS, tiny_model
from pipeline.training import FigaCollator, figa_loss


def main(argv: list[str] | None = None) -> list[float]:
    """Train; returns the mean loss of each epoch."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", default="out/demo", help="output folder of a finished run (default out/demo)")
    p.add_argument("--model", help="folder or Hub id; default: a tiny model with random weights")
    p.add_argument("--epochs", type=int, default=3)
    p.add_argument("--batch-size", type=int, default=4, help="pairs in a step, two sequences each (default 4)")
    p.add_argument("--lr", type=float, help="learning rate; default 1e-5, as the paper's, or 3e-3 for the random model")
    arguments = p.parse_args(argv)
    torch.manual_seed(0)

    data = pipeline.open_dataset(arguments.data)  # checked against its manifest
    labels = data.manifest["labels"]
    rows = data.to_table(COLUMNS).to_pylist()
    print(f"{len(rows)} pairs, in tokens of {labels['tokenizer']}")
    eos = labels["eos_id"]
    if arguments.model:
        model = AutoModelForCausalLM.from_pretrained(arguments.model)
    else:
        model, rows, eos = tiny_model(rows, eos)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.lr or (1e-5 if arguments.model else 3e-3))
    # Each pair becomes two sequences: the revised answer, whose edits have positive weights, and the initial one, whose
    # mistakes have negative ones.
    batches = DataLoader(rows, arguments.batch_size, shuffle=True, collate_fn=FigaCollator(eos))
    means = []
    for epoch in range(arguments.epochs):
        losses = [step(model, optimizer, batch, labels["gate"]) for batch in batches]
        means.append(sum(losses) / len(losses))
        print(f"epoch {epoch + 1}: mean loss {means[-1]:.3f}")
    return means


def step(model: Any, optimizer: torch.optim.Optimizer, batch: dict[str, torch.Tensor], gate: float) -> float:
    """One update; returns its loss."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    loss = figa_loss(logits, batch["labels"], batch["loss_weights"], gate=gate)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


if __name__ == "__main__":
    main()
