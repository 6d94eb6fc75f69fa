"""The policy in torch, cut in two: a trunk that stays as it is, and the top layers, which are trained.

With a frozen trunk its output for a training sequence never changes: it is computed once, and a step costs only the top
layers and, at the tokens that the loss looks at, the output head. That is what makes thirty runs bearable on a CPU.
The trained layers' master weights are float32; all else, and the matrix products, are bfloat16.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from pipeline.config.settings import CurationConfig
from pipeline.models.local import catalog
from pipeline.models.local.download import fetch

NAME = CurationConfig().policy.model.removeprefix("local/")
_BATCH = 16


def load() -> Any:
    """The default policy's own file, dequantised to bfloat16."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    file: Path = fetch(catalog.get(NAME))
    return AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name, dtype=torch.bfloat16)


class Policy:
    """A model built like Llama whose last `layers` layers can be trained and put back.

    trunk(ids)   -> hidden states (T, width) of one sequence, where the top begins
    top(hidden)  -> hidden states (B, T, width) where the head begins, padded on the right
    head(hidden) -> logits
    """

    def __init__(self, model: Any, layers: int) -> None:
        self.model = model.eval().requires_grad_(False)
        split = len(model.model.layers) - layers
        self._trunk = _part(model, model.model.layers[:split], nn.Identity())
        self._top = _part(model, model.model.layers[split:], model.model.norm)
        self._frozen = [model.model.embed_tokens, model.model.norm, model.lm_head, *model.model.layers[:split]]
        self._layers = model.model.layers[split:].float().requires_grad_(True)
        self._start = {name: value.clone() for name, value in self._layers.state_dict().items()}

    def restart(self) -> list[nn.Parameter]:
        """Put the top layers back to where they started; what an optimiser is to train."""
        self._layers.load_state_dict(self._start)
        return list(self._layers.parameters())

    def trunk(self, sequences: Sequence[Sequence[int]]) -> list[Tensor]:
        """In batches of similar length."""
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        found: dict[int, Tensor] = {}
        for begin in range(0, len(order), _BATCH):
            chosen = order[begin : begin + _BATCH]
            ids = [torch.tensor(sequences[i]) for i in chosen]
            with torch.no_grad(), autocast():
                hidden = self._trunk(
                    input_ids=pad_sequence(ids, batch_first=True), attention_mask=_mask(ids), use_cache=False
                ).last_hidden_state
            found |= {i: hidden[row, : len(sequences[i])].float() for row, i in enumerate(chosen)}
        return [found[i] for i in range(len(sequences))]

    def top(self, hidden: Sequence[Tensor]) -> Tensor:
        with autocast():
            padded = pad_sequence(list(hidden), batch_first=True)
            output = self._top(inputs_embeds=padded, attention_mask=_mask(hidden), use_cache=False)
        return output.last_hidden_state

    def head(self, hidden: Tensor) -> Tensor:
        with autocast():
            return self.model.lm_head(hidden).float()

    def snapshot(self) -> Any:
        """A model to write answers with: a copy of the top, in the frozen part's numbers, upon that part itself."""
        copied = copy.deepcopy(self.model, {id(part): part for part in self._frozen})
        copied.model.layers[-len(self._layers) :].to(self.model.lm_head.weight.dtype)
        return copied


def autocast() -> Any:
    return torch.autocast("cpu", dtype=torch.bfloat16)


def _part(model: Any, layers: Any, norm: nn.Module) -> Any:
    """A model of some of the layers, sharing their weights."""
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = len(layers)
    with torch.device("meta"):
        part = type(model.model)(config)
    part.layers, part.norm = layers, norm
    part.embed_tokens, part.rotary_emb = model.model.embed_tokens, model.model.rotary_emb
    return part.eval()


def _mask(rows: Sequence[Tensor]) -> Tensor:
    return pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True)
