"""`figa train DIR --model ID --out DIR2`: train a causal language model on a data set with FIGA's loss.

The defaults are the recipe that FIGA's authors released: learning rate 1e-5, constant, no weight decay, 5 epochs, 128 pairs
per step, bfloat16 where the device has it. Unlike theirs, sequences are never cut. On several devices, with the same result
up to rounding: `torchrun --nproc-per-node=8 -m pipeline train …`. Trainer repeats pairs to fill an epoch's last step where
that has fewer than devices × micro-batch.
"""

import argparse
import os
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

from pipeline.cli.arguments import add_dir, count, gate, local_folder, positive_integer, positive_number
from pipeline.errors import UsageError

INTERRUPTED = "--resume goes on from the last whole epoch"
EXAMPLES = ("figa train out/hh-rlhf --model org/my-sft-model --out out/trained --epochs 3",)


def add_arguments(p: argparse.ArgumentParser) -> None:
    add_dir(p)
    p.add_argument("--model", metavar="ID", required=True, help="folder or Hub id; its tokenizer is that of the labels")
    p.add_argument("--out", metavar="DIR2", type=local_folder, required=True, help="a new folder for the model")
    p.add_argument("--epochs", type=positive_number, default=5.0)
    p.add_argument("--max-steps", type=positive_integer, help="optimiser steps; overrides --epochs")
    p.add_argument("--lr", type=positive_number, default=1e-5, help="learning rate, constant")
    p.add_argument("--batch-size", type=positive_integer, default=128, help="pairs per optimiser step, on all devices")
    p.add_argument("--micro-batch-size", type=positive_integer, default=4, help="pairs at a time; changes no result")
    p.add_argument("--max-length", type=positive_integer, help="leave out longer pairs; default: the data set's")
    p.add_argument("--gate", type=gate, help="confidence gate in nats, inf, or LOW,HIGH; default: the data set's")
    p.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="auto: bf16 where it works")
    p.add_argument("--gradient-checkpointing", action="store_true", help="less memory, a third slower")
    p.add_argument("--seed", type=count, default=0)
    p.add_argument("--resume", action="store_true", help="go on from the last epoch saved in --out")


def run(arguments: argparse.Namespace) -> tuple[int, object]:
    from pipeline import open_dataset

    check_extra()
    if arguments.model.startswith("local/"):
        raise UsageError(
            f"--model {arguments.model}: an embedded model's file can't be trained; name a model of transformers that has the "
            "same tokenizer, as a folder or Hub id"
        )
    _check_out(arguments.out, resume=arguments.resume)
    dataset = open_dataset(arguments.dir)
    # Advice for developers would hide the progress; errors still show.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Threads that spin while they wait for each other make a small model many times slower on cores that are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from pipeline.training.recipe import Recipe, train

    names = {field.name for field in fields(Recipe)}
    summary = train(dataset, Recipe(**{name: value for name, value in vars(arguments).items() if name in names}))
    # Every device has a process of its own; one prints the result.
    return 0, summary if os.environ.get("RANK", "0") == "0" else None


def check_extra() -> None:
    """Raises UsageError when the packages that training takes are not installed."""
    if missing := [name for name in ("torch", "accelerate") if find_spec(name) is None]:
        raise UsageError(f"training needs {' and '.join(missing)}: pip install -e '.[train]'")


def _check_out(out: Path, *, resume: bool) -> None:
    from pipeline.storage.ours import check_empty

    if (out / "config.json").exists():
        raise UsageError(f"--out {out}: holds a trained model already; name a new folder")
    saved = any(out.glob("checkpoint-*"))
    if resume and not saved:
        raise UsageError(f"--resume: no epoch was saved in {out}; start without it")
    if not resume:
        check_empty(out, "give --resume to go on, or name a new folder" if saved else "name a new folder")
