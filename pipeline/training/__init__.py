"""Training on the published labels: FIGA's loss, a collator for pairs, and trainers. The only package that imports torch.

    figa_loss       the loss, for any training loop
    FigaCollator    pairs, or single sequences, to padded tensors
    FigaTrainer     transformers' Trainer with both; `trl_recipe.FigaSFTTrainer` is the same over TRL's SFTTrainer

`figa train DIR --model ID --out DIR2` trains. Needs the `train` extra; importing this package alone does not.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.training.collator import FigaCollator
    from pipeline.training.loss import figa_loss
    from pipeline.training.trainer import FigaTrainer

__all__ = ["FigaCollator", "FigaTrainer", "figa_loss"]
_MODULES = {"FigaCollator": "collator", "FigaTrainer": "trainer", "figa_loss": "loss"}


def __getattr__(name: str) -> Any:
    # Lazy, so that `figa train --help` and the message about a missing torch don't import it.
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
