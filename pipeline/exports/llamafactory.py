"""`llamafactory`: preference data in LLaMA-Factory's ShareGPT form, with the `dataset_info.json` that describes it.

Keys and rules as its `data/README.md` documents them. A conversation must alternate human and gpt, and end with human; a
system turn may come first. LLaMA-Factory empties other rows with no more than a warning, so they are left out here, by name.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipeline.exports.format import Format, Render

_NAMES = {"system": "system", "user": "human", "assistant": "gpt"}
_TURN = pa.struct([("from", pa.string()), ("value", pa.string())])
DATASET = "figa_pairs"

_CONTRACT = """\
`{file}` is a JSON array of `conversations` (the query's turns), `chosen` (the revision Ỹ) and `rejected` (the initial answer
Ŷ), each turn as {{"from", "value"}}. `dataset_info.json` describes it under the name `figa_pairs`: use this folder as
`dataset_dir` and `dataset: figa_pairs`, with `stage: dpo` (or `rm`).

**Loss.** The stage's own preference loss over whole answers. The token weights are not here: this format has no place for them,
and LLaMA-Factory's v1 would divide by their sum, which with negative weights may flip the loss.

**A trainer must not** cut pairs unnoticed: set `cutoff_len` above the longest sequence. Pairs whose turns do not alternate are
in skipped.jsonl: LLaMA-Factory would take an empty example in their place.
"""


def convert(pairs: pa.Table, _: Render) -> pa.Table:
    conversations = [
        [{"from": _NAMES[turn["role"]], "value": turn["content"]} for turn in messages]
        for messages in pairs["messages"].to_pylist()
    ]
    return pa.table(
        {
            "conversations": pa.array(conversations, pa.list_(_TURN)),
            "chosen": _answers(pairs["revised"]),
            "rejected": _answers(pairs["initial"]),
        }
    )


def _answers(texts: pa.ChunkedArray) -> pa.Array:
    return pa.array([{"from": "gpt", "value": text} for text in texts.to_pylist()], _TURN)


def unfit(pair: dict[str, Any]) -> str | None:
    """Why LLaMA-Factory would not take the pair."""
    roles = [turn["role"] for turn in pair["messages"]]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    expected = [("user", "assistant")[place % 2] for place in range(len(spoken))]
    return None if spoken == expected and len(spoken) % 2 else "turns_do_not_alternate"


FORMAT = Format(
    name="llamafactory",
    file="data.json",
    columns=("messages", "initial", "revised"),
    variants={"sharegpt": convert},
    contract=_CONTRACT,
    unfit=unfit,
    companions={
        "dataset_info.json": {
            DATASET: {
                "file_name": "data.json",
                "formatting": "sharegpt",
                "ranking": True,
                "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
            }
        }
    },
)
