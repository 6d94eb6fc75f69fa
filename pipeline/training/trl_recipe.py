"""FIGA's loss in TRL's SFTTrainer: the working recipe.

    from datasets import load_dataset
    from trl import SFTConfig

    from pipeline.training import FigaCollator
    from pipeline.training.trl_recipe import FigaSFTTrainer, figa_arguments

    sequences = load_dataset("parquet", data_files="sequences/train.parquet")["train"]   # figa export --format sequences
    trainer = FigaSFTTrainer(
        model,
        SFTConfig("out", learning_rate=1e-5, **figa_arguments()),
        data_collator=FigaCollator(tokenizer.pad_token_id),
        train_dataset=sequences,
        processing_class=tokenizer,
    )
    trainer.train()

SFTTrainer alone would be silently wrong: it drops the column of weights, which neither its collator nor `compute_loss_func`
knows, and cuts sequences, EOS included, at `max_length`, 1024 by default.
"""

from typing import Any

from trl import SFTTrainer

from pipeline.training.trainer import FigaTrainer


class FigaSFTTrainer(FigaTrainer, SFTTrainer):  # type: ignore[misc]  # TRL is untyped here
    """TRL's SFTTrainer with FIGA's loss. TRL's own per-token metrics are not computed: they belong to its loss."""


def figa_arguments() -> dict[str, Any]:
    """What SFTConfig needs, so that the stored sequences are trained on as they are: not prepared, cut or packed."""
    return {"max_length": None, "packing": False, "dataset_kwargs": {"skip_prepare_dataset": True}}
