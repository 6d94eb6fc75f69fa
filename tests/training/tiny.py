"""A tiny random Llama for the tests' tokenizer, and one optimiser step of it by FigaTrainer.

`python -m tests.training.tiny DATA POLICY OUT` does that step, unclipped, as one of several processes, and saves what came out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pipeline

EOS = 1


def tiny_llama() -> Any:
    """One layer of width 64 for the tests' vocabulary, random weights, float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=802,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=EOS,
        pad_token_id=EOS,
    )
    return LlamaForCausalLM(config)


def pairs(folder: Path, count: int) -> Any:
    """The first pairs of a published data set, as a `datasets.Dataset` with all its columns."""
    return pipeline.open_dataset(folder).to_datasets().select(range(count))


def quiet(out: Path, **changes: Any) -> dict[str, Any]:
    """Arguments of a trainer that takes one plain step of gradient descent on the CPU, and prints and saves nothing."""
    return {
        "output_dir": str(out),
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "optim": "sgd",
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "max_steps": 1,
        **changes,
    }


def step(model: Any, dataset: Any, out: Path, **changes: Any) -> float:
    """Train `model` by FigaTrainer; the first logged loss."""
    from transformers import TrainingArguments

    from pipeline.training import FigaCollator, FigaTrainer

    arguments = TrainingArguments(**quiet(out, **changes))
    trainer = FigaTrainer(model, arguments, FigaCollator(EOS), train_dataset=dataset)
    trainer.train()
    return float(trainer.state.log_history[0]["loss"])


def flat(model: Any) -> Any:
    import torch

    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def main(data: str, policy: str, out: str) -> None:
    import torch

    torch.set_num_threads(1)
    model = tiny_llama()
    model.load_state_dict(torch.load(policy, weights_only=True))
    cut = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    loss = step(model, pairs(Path(data), 16), Path(out), max_grad_norm=0.0, **cut)
    rank = torch.distributed.get_rank()
    torch.save(
        {"loss": loss, "parameters": flat(model), "world": torch.distributed.get_world_size()}, f"{out}/{rank}.pt"
    )
    # Left to the interpreter's end, its threads may abort the process.
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
