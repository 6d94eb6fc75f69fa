"""`sft`: the revisions alone, for supervised fine-tuning (TRL's SFTTrainer, axolotl, and whatever takes messages)."""

from __future__ import annotations

import pyarrow as pa

from pipeline.exports.format import Format, Render, assistant_turns, rendered_prompts
from pipeline.schema import MESSAGES

_CONTRACT = """\
- variant `messages`: `{file}` has one column, `messages`: the query's turns and the revision Ỹ as the assistant's last.
- variant `prompt-completion`: `prompt`, the query's turns, and `completion`, one assistant turn.
- variant `standard`: the same two as text, `prompt` rendered exactly as for the published labels ({tokenizer}, template
  {template}); the trainer appends the EOS.

**Loss.** Mean cross-entropy over the revision's tokens, each with weight 1. That is imitation of Ỹ: what the initial answer did
wrong, and the token weights, are not here.

**A trainer must not** train on the query: with `messages` set `assistant_only_loss=True` in TRL (which also trains on earlier
assistant turns, so `prompt-completion` is the exact choice for conversations), and must not cut sequences: `max_length=None`.
"""


def messages(pairs: pa.Table, _: Render) -> pa.Table:
    whole = [
        [*query, {"role": "assistant", "content": revised}]
        for query, revised in zip(pairs["messages"].to_pylist(), pairs["revised"].to_pylist(), strict=True)
    ]
    return pa.table({"messages": pa.array(whole, MESSAGES)})


def prompt_completion(pairs: pa.Table, _: Render) -> pa.Table:
    return pa.table({"prompt": pairs["messages"], "completion": assistant_turns(pairs["revised"])})


def standard(pairs: pa.Table, render: Render) -> pa.Table:
    return pa.table({"prompt": rendered_prompts(pairs, render), "completion": pairs["revised"]})


FORMAT = Format(
    name="sft",
    file="train.parquet",
    columns=("messages", "revised"),
    variants={"messages": messages, "prompt-completion": prompt_completion, "standard": standard},
    rendered=("standard",),
    contract=_CONTRACT,
)
