"""`spa`: the five fields of SPA, the data set that FIGA's authors released, readable by their trainer.

Their trainer tokenises the texts again, with Stanford Alpaca's prompt, and computes its own alignment and weights from them.
"""

from __future__ import annotations

import pyarrow as pa

from pipeline.exports.format import Format, Messages, Render

_CONTRACT = """\
`{file}` is a JSON array of objects with SPA's five fields, all text:

| field | meaning |
|---|---|
| `instruction` | the query; the turns of a conversation are joined by a blank line, in order, without their roles |
| `input` | always empty: the query is whole in `instruction` |
| `output` | the reference answer Y |
| `original_output` | the model's initial answer Ŷ |
| `revised_output` | its minimal revision Ỹ |

**Loss.** None of the published token labels is here: the authors' trainer aligns `original_output` with `revised_output` by
itself and trains on [Σ α·CE over good tokens − Σ β·CE over bad ones] / N, with the gate at 0.6 nats. Training on `output` is
imitation of the reference, another method.

**A trainer must not** cut the sequences: the authors' cuts at 512 tokens, EOS included. Its tokenisation differs from the
published one in prompt, join and cut, so its weights may differ in places.
"""


def instruction(messages: Messages) -> str:
    """A conversation as one instruction, joined as the Alpaca prompt of the labels joins it."""
    return "\n\n".join(message["content"] for message in messages)


def convert(pairs: pa.Table, _: Render) -> pa.Table:
    instructions = [instruction(messages) for messages in pairs["messages"].to_pylist()]
    return pa.table(
        {
            "instruction": pa.array(instructions, pa.string()),
            "input": pa.array([""] * pairs.num_rows, pa.string()),
            "output": pairs["reference"],
            "original_output": pairs["initial"],
            "revised_output": pairs["revised"],
        }
    )


FORMAT = Format(
    name="spa",
    file="data.json",
    columns=("messages", "reference", "initial", "revised"),
    variants={"spa": convert},
    contract=_CONTRACT,
    bare=True,
)
