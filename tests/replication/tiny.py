"""A transformer small enough to train from scratch in minutes, with a tokenizer of one token a word."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pipeline.training.loss import IGNORE
from tests.replication.policy import Policy
from tests.replication.tasks import WORDS, Task, draw

_MARKS = ["<end>", "<q>", "<a>", "<unk>"]
_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] + '<end>' }}"
    "{% else %}{{ '<q>' + m['content'] + '<a>' }}{% endif %}{% endfor %}"
)
_RATE, _WARMUP, _BATCH = 3e-3, 100, 32


def save_tokenizer(folder: Path) -> Path:
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate([*_MARKS, *WORDS])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=_MARKS[0],
        pad_token=_MARKS[0],
        extra_special_tokens=_MARKS[1:],
        chat_template=_TEMPLATE,
    )
    fast.save_pretrained(folder)
    return folder


def prompt_ids(query: str) -> list[int]:
    return [1, *ids_of(query), 2]


def ids_of(text: str) -> list[int]:
    return [_WORD_IDS[word] for word in text.split()]


def text_of(ids: Sequence[int]) -> str:
    return " ".join(_TEXTS[i] for i in ids)


_TEXTS = [*_MARKS, *WORDS]
_WORD_IDS = {word: n for n, word in enumerate(_TEXTS)}


class TinyPolicy(Policy):
    """The whole model is trained: the "hidden states" are the token ids, and the top gives the logits."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._start = copy.deepcopy(model.state_dict())

    def restart(self) -> list[nn.Parameter]:
        self.model.load_state_dict(self._start)
        return list(self.model.parameters())

    def trunk(self, sequences: Sequence[Sequence[int]]) -> list[Tensor]:
        return [torch.tensor(ids) for ids in sequences]

    def top(self, hidden: Sequence[Tensor]) -> Tensor:
        # Padding on the right can't change what stands before it in a causal model.
        logits: Tensor = self.model(pad_sequence(list(hidden), batch_first=True), use_cache=False).logits
        return logits

    def head(self, hidden: Tensor) -> Tensor:
        return hidden


def pretrain(steps: int, slips: float, seed: int, but: set[str]) -> TinyPolicy:
    """A policy that has learned from right answers and, at the rate `slips`, the usual mistakes, to queries not in `but`."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    config = LlamaConfig(
        vocab_size=len(_TEXTS),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: min((n + 1) / _WARMUP, (steps - n) / (steps - min(_WARMUP, steps - 1)))
    )
    for _ in range(steps):
        rows = [_example(rng, slips, but) for _ in range(_BATCH)]
        ids = pad_sequence([torch.tensor(p + a) for p, a in rows], batch_first=True)
        labels = pad_sequence(
            [torch.tensor([IGNORE] * len(p) + a) for p, a in rows], batch_first=True, padding_value=IGNORE
        )
        logits = model(ids, use_cache=False).logits
        functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return TinyPolicy(model.eval())


def _example(rng: random.Random, slips: float, but: set[str]) -> tuple[list[int], list[int]]:
    task: Task = draw(rng)
    while task.query in but:
        task = draw(rng)
    answer = rng.choice(task.answers(slip=rng.random() < slips))
    return prompt_ids(task.query), [*ids_of(answer), 0]
