"""`sequences`: one row per sequence, tokens and signed weights as published, for any trainer that takes a weighted loss."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.exports.format import Format, Render

_CONTRACT = """\
`{file}` has two rows for each pair, the revised sequence (rows 0, 2, 4 …) and the initial one (1, 3, 5 …):

| column | type | meaning |
|---|---|---|
| `input_ids` | list<int32> | the whole sequence: prompt, response, EOS, by {tokenizer} |
| `labels` | list<int32> | the same, −100 on the prompt |
| `loss_weights` | list<float32> | signed: positive pushes a token up, negative down, 0 leaves it alone |

The attention mask is all ones; there is no padding.

**Loss.** [ Σ w·CE over weights > 0  +  Σ w·CE over weights < 0 where CE ≤ {gate} nats ] / N. Labels are of their own position:
shift by one, logits at t are for the label at t + 1. N is the number of terms that count, over the whole batch, all devices
and accumulated micro-batches. `pipeline.training.figa_loss` is this loss; `pipeline.training.trl_recipe` puts it into
TRL's SFTTrainer.

**A trainer must not**

- drop `loss_weights`: TRL and transformers drop columns that the model's forward doesn't name, unless set to
  `remove_unused_columns=False`; what is left is plain imitation, of the *bad* answers too;
- divide by the sum of the weights, as LLaMA-Factory's v1 does: with negative weights the sum may be near zero or negative,
  which blows the loss up or flips it;
- take the mean of micro-batches' or devices' means; clamp weights to be positive; leave out the gate with negative weights;
- cut sequences: the EOS carries a weight.
"""
_COLUMNS = {"input_ids": "input_ids", "labels": "labels", "weights": "loss_weights"}


def convert(pairs: pa.Table, _: Render) -> pa.Table:
    """Interleave both sides. No value is touched, so ids, labels and weights are the published ones bit for bit."""
    order = pa.array(np.arange(2 * pairs.num_rows).reshape(2, -1).T.ravel())

    def interleaved(field: str) -> pa.ChunkedArray:
        revised, initial = pairs[f"revised_{field}"], pairs[f"initial_{field}"]
        return pa.chunked_array(revised.chunks + initial.chunks, revised.type).take(order)

    return pa.table({name: interleaved(field) for field, name in _COLUMNS.items()})


FORMAT = Format(
    name="sequences",
    file="train.parquet",
    columns=tuple(f"{side}_{field}" for side in ("revised", "initial") for field in _COLUMNS),
    variants={"sequences": convert},
    contract=_CONTRACT,
)
