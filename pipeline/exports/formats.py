"""The formats, each a function from published pairs to the rows of another trainer's data set.

dpo: preference pairs for TRL's DPOTrainer and its kin. llamafactory: preference data in LLaMA-Factory's ShareGPT form, by the
rules of its `data/README.md`. sequences: one row per sequence, for any trainer that takes a weighted loss. sft: the revisions
alone, for supervised fine-tuning. spa: the fields of SPA, the data set that FIGA's authors released, for their trainer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import UsageError
from pipeline.schema import MESSAGES

Messages = Sequence[dict[str, str]]
Render = Callable[[Messages], str]
# From published pairs, with the format's `columns`, to the rows to write. The second argument renders a query as the data
# set's own tokenizer did, up to the first character of the response.
Convert = Callable[[pa.Table, Render], pa.Table]
DATASET = "figa_pairs"
_SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt"}
_SHAREGPT_TURN = pa.struct([("from", pa.string()), ("value", pa.string())])
_SEQUENCE_COLUMNS = {"input_ids": "input_ids", "labels": "labels", "weights": "loss_weights"}


@dataclass(frozen=True, slots=True)
class Format:
    """A format that `figa export` writes. NAME.md beside this file is the contract for the output's README.

    file: data.json, one array with one line per row, or a .parquet file. columns: the published ones that it reads.
    variants: layouts by name, the default first; rendered: those that call the renderer, and so need the tokenizer.
    unfit: why the consumer would not accept a pair, or None; such pairs are listed in skipped.jsonl. companions: further
    files by name, as JSON values. bare: queries stay without the system prompt that the policy and the labels used.
    """

    name: str
    file: str
    columns: tuple[str, ...]
    variants: Mapping[str, Convert]
    rendered: tuple[str, ...] = ()
    unfit: Callable[[dict[str, Any]], str | None] | None = None
    companions: Mapping[str, Any] = field(default_factory=dict)
    bare: bool = False


def get(name: str, variant: str | None = None) -> tuple[Format, str]:
    """The format and its variant, None meaning the format's first. Raises UsageError that lists what there is."""
    if name not in FORMATS:
        raise UsageError(f"--format {name}: unknown; there are {', '.join(FORMATS)}")
    variants = FORMATS[name].variants
    if variant is not None and variant not in variants:
        raise UsageError(f"--variant {variant}: format {name} has {', '.join(variants)}")
    return FORMATS[name], variant or next(iter(variants))


def unfit_for_llamafactory(pair: dict[str, Any]) -> str | None:
    """Why LLaMA-Factory would empty the pair with no more than a warning: turns must alternate, and end with the user's."""
    roles = [turn["role"] for turn in pair["messages"]]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    expected = [("user", "assistant")[place % 2] for place in range(len(spoken))]
    return None if spoken == expected and len(spoken) % 2 else "turns_do_not_alternate"


def instruction(messages: Messages) -> str:
    """A conversation as one instruction, joined as the Alpaca prompt of the labels joins it."""
    return "\n\n".join(message["content"] for message in messages)


def _with_prompt(answers: Mapping[str, str], *, text: bool) -> Convert:
    """Columns `prompt` and `answers`, by name: rendered texts, or else messages that the trainer renders."""

    def convert(pairs: pa.Table, render: Render) -> pa.Table:
        columns = {"prompt": pairs["messages"]}
        if text:
            columns["prompt"] = pa.array([render(query) for query in pairs["messages"].to_pylist()], pa.string())
        for name, side in answers.items():
            turns = [[{"role": "assistant", "content": answer}] for answer in pairs[side].to_pylist()]
            columns[name] = pairs[side] if text else pa.array(turns, MESSAGES)
        return pa.table(columns)

    return convert


def _sft_messages(pairs: pa.Table, _: Render) -> pa.Table:
    whole = [
        [*query, {"role": "assistant", "content": revised}]
        for query, revised in zip(pairs["messages"].to_pylist(), pairs["revised"].to_pylist(), strict=True)
    ]
    return pa.table({"messages": pa.array(whole, MESSAGES)})


def _sequences(pairs: pa.Table, _: Render) -> pa.Table:
    """Interleave both sides. No value is touched, so ids, labels and weights are the published ones bit for bit."""
    order = pa.array(np.arange(2 * pairs.num_rows).reshape(2, -1).T.ravel())

    def interleaved(field: str) -> pa.ChunkedArray:
        revised, initial = pairs[f"revised_{field}"], pairs[f"initial_{field}"]
        return pa.chunked_array(revised.chunks + initial.chunks, revised.type).take(order)

    return pa.table({name: interleaved(field) for field, name in _SEQUENCE_COLUMNS.items()})


def _sharegpt(pairs: pa.Table, _: Render) -> pa.Table:
    conversations = [
        [{"from": _SHAREGPT_ROLES[turn["role"]], "value": turn["content"]} for turn in messages]
        for messages in pairs["messages"].to_pylist()
    ]
    columns = {"conversations": pa.array(conversations, pa.list_(_SHAREGPT_TURN))}
    for name, side in _PREFERENCE.items():
        answers = [{"from": "gpt", "value": text} for text in pairs[side].to_pylist()]
        columns[name] = pa.array(answers, _SHAREGPT_TURN)
    return pa.table(columns)


def _spa(pairs: pa.Table, _: Render) -> pa.Table:
    columns = {
        "instruction": pa.array([instruction(query) for query in pairs["messages"].to_pylist()], pa.string()),
        "input": pa.array([""] * pairs.num_rows, pa.string()),
    }
    texts = {"output": "reference", "original_output": "initial", "revised_output": "revised"}
    return pa.table(columns | {name: pairs[column] for name, column in texts.items()})


_PREFERENCE = {"chosen": "revised", "rejected": "initial"}
_COMPLETION = {"completion": "revised"}
_DATASET_INFO = {
    "file_name": "data.json",
    "formatting": "sharegpt",
    "ranking": True,
    "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
}
_ALL = (
    Format(
        name="spa",
        file="data.json",
        columns=("messages", "reference", "initial", "revised"),
        variants={"spa": _spa},
        bare=True,
    ),
    Format(
        name="dpo",
        file="train.parquet",
        columns=("messages", "initial", "revised"),
        variants={
            "conversational": _with_prompt(_PREFERENCE, text=False),
            "standard": _with_prompt(_PREFERENCE, text=True),
        },
        rendered=("standard",),
    ),
    Format(
        name="sft",
        file="train.parquet",
        columns=("messages", "revised"),
        variants={
            "messages": _sft_messages,
            "prompt-completion": _with_prompt(_COMPLETION, text=False),
            "standard": _with_prompt(_COMPLETION, text=True),
        },
        rendered=("standard",),
    ),
    Format(
        name="sequences",
        file="train.parquet",
        columns=tuple(f"{side}_{field}" for side in ("revised", "initial") for field in _SEQUENCE_COLUMNS),
        variants={"sequences": _sequences},
    ),
    Format(
        name="llamafactory",
        file="data.json",
        columns=("messages", "initial", "revised"),
        variants={"sharegpt": _sharegpt},
        unfit=unfit_for_llamafactory,
        companions={"dataset_info.json": {DATASET: _DATASET_INFO}},
    ),
)
FORMATS = {format.name: format for format in _ALL}
