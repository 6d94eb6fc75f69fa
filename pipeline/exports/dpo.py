"""`dpo`: preference pairs for TRL's DPOTrainer (and its kin): the revision is preferred to the initial answer."""

from __future__ import annotations

import pyarrow as pa

from pipeline.exports.format import Format, Render, assistant_turns, rendered_prompts

_CONTRACT = """\
`{file}` has `prompt`, `chosen` (the revision Ỹ) and `rejected` (the initial answer Ŷ).

- variant `conversational`: lists of {{"role", "content"}} messages; the trainer renders them with its tokenizer's chat
  template and adds the end of turn.
- variant `standard`: text. `prompt` is rendered exactly as for the published labels ({tokenizer}, template {template}), up
  to the first character of the answer; the trainer appends the EOS. Switch off any BOS that its tokenizer adds by itself
  where the prompt has one already.

**Loss.** DPO: −log σ(β_DPO · [log-ratio of chosen − log-ratio of rejected]), against a frozen reference model, best the policy
that wrote the initial answers. Whole answers are compared: the token weights are not here, and this is the baseline
that FIGA is compared with, not FIGA. β_DPO has nothing to do with the labels' β.

**A trainer must not** cut sequences unnoticed: TRL cuts at `max_length`, 1024 by default; give `max_length=None`. Chosen and
rejected share most of their tokens by design: length normalisation and label smoothing change the little that differs.
"""


def conversational(pairs: pa.Table, _: Render) -> pa.Table:
    chosen, rejected = (assistant_turns(pairs[name]) for name in ("revised", "initial"))
    return pa.table({"prompt": pairs["messages"], "chosen": chosen, "rejected": rejected})


def standard(pairs: pa.Table, render: Render) -> pa.Table:
    prompts = rendered_prompts(pairs, render)
    return pa.table({"prompt": prompts, "chosen": pairs["revised"], "rejected": pairs["initial"]})


FORMAT = Format(
    name="dpo",
    file="train.parquet",
    columns=("messages", "initial", "revised"),
    variants={"conversational": conversational, "standard": standard},
    rendered=("standard",),
    contract=_CONTRACT,
)
