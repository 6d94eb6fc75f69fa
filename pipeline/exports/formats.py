"""The formats: what each one's rows are, and who makes ids of its texts; NAME.md is the contract of the loss they are for.

Axolotl, sequences, tinker and the variants `tokens` and `tokenized` carry the published ids. The others carry texts, which the
trainer tokenises as `trainers` says.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.errors import UsageError
from pipeline.exports import rows, trainers
from pipeline.exports.rows import MEDIA, PREFERENCE
from pipeline.exports.trainers import Row, Trainer
from pipeline.schema import MESSAGES

DATASET = "figa_pairs"
_TURN = pa.struct([("from", pa.string()), ("value", pa.string())])
_TEXT, _IDS, _WEIGHTS, _NUMBER = pa.string(), pa.list_(pa.int32()), pa.list_(pa.float32()), pa.float32()
_READ_IDS = ("prompt_input_ids", "revised_input_ids", "initial_input_ids")
_READ_TEXTS = ("messages", "reference", "initial", "revised", "reward_initial", "reward_revised", *_READ_IDS)
_READ_LABELS = tuple(f"{side}_{kind}" for side in ("revised", "initial") for kind in ("labels", "weights"))


@dataclass(frozen=True, slots=True)
class Variant:
    """One layout of a format.

    convert: a published pair's rows. columns: theirs. reads: the published columns that it needs. file: .parquet, .jsonl, or
    .json for an array with one line per row. answers: for each row, its columns whose text a trainer tokenises, with
    the published side that each holds; trainer: how it does that. rendered: the pair has `texts`, the exact
    texts of the labels, by side. Columns in `optional` are left out where any pair has no value for them. unfit: why
    the consumer would not accept a pair, or None. companions: further files by name, as JSON values. bare: queries stay without
    the system prompt that the policy and the labels used.
    """

    convert: Callable[[Row], list[Row]]
    columns: Mapping[str, pa.DataType]
    reads: tuple[str, ...] = (*_READ_IDS, *_READ_LABELS)
    file: str = "train.parquet"
    trainer: Trainer = trainers.trl
    answers: tuple[Mapping[str, str], ...] = ()
    rendered: bool = False
    optional: tuple[str, ...] = ()
    unfit: Callable[[Row], str | None] | None = None
    companions: Mapping[str, Any] = field(default_factory=dict)
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Format:
    """A format that `figa export` writes, its variants by name, the default first. NAME.md is the output's README."""

    name: str
    variants: Mapping[str, Variant]


def get(name: str, variant: str | None = None) -> tuple[Format, str]:
    """The format and its variant, None meaning the format's first. Raises UsageError that lists what there is."""
    if name not in FORMATS:
        raise UsageError(f"--format {name}: unknown; there are {', '.join(FORMATS)}")
    variants = FORMATS[name].variants
    if variant is not None and variant not in variants:
        raise UsageError(f"--variant {variant}: format {name} has {', '.join(variants)}")
    return FORMATS[name], variant or next(iter(variants))


def _prompted(
    *answers: Mapping[str, str],
    rendered: bool,
    trainer: Trainer = trainers.trl,
    label: bool = False,
    margin: bool = False,
) -> Variant:
    """Rows with `prompt` and answers, as messages or as the exact texts of the labels; one row for each of `answers`."""

    def convert(pair: Row) -> list[Row]:
        made: list[Row] = []
        for number, names in enumerate(answers):
            row = {"prompt": pair["texts"]["prompt"] if rendered else pair["messages"]}
            row |= {name: pair["texts"][side] if rendered else rows.answer(pair[side]) for name, side in names.items()}
            made.append(
                row | ({"label": not number} if label else {}) | ({"margin": rows.margin(pair)} if margin else {})
            )
        return made

    columns = dict.fromkeys(("prompt", *answers[0]), _TEXT if rendered else MESSAGES)
    columns |= ({"label": pa.bool_()} if label else {}) | ({"margin": _NUMBER} if margin else {})
    return Variant(
        convert,
        columns,
        _READ_TEXTS,
        trainer=trainer,
        answers=answers,
        rendered=rendered,
        optional=("margin",) if margin else (),
    )


def _both(*answers: Mapping[str, str], **options: Any) -> dict[str, Variant]:
    return {
        "conversational": _prompted(*answers, rendered=False, **options),
        "standard": _prompted(*answers, rendered=True, **options),
    }


_TRIPLE = PREFERENCE | {"reference": "reference"}
_DATASET_INFO = {
    "file_name": "data.json",
    "formatting": "sharegpt",
    "ranking": True,
    "columns": {"messages": "conversations", **{name: name for name in PREFERENCE}},
}
_LISTS = dict.fromkeys(("input_ids", "attention_mask", "labels"), _IDS)
_ALL = (
    Format("spa", {"spa": Variant(rows.spa, {}, _READ_TEXTS, "data.json", bare=True)}),
    Format("dpo", _both(_TRIPLE, margin=True)),
    Format(
        "sft",
        {
            "messages": Variant(
                rows.messages,
                {"messages": MESSAGES},
                _READ_TEXTS,
                trainer=trainers.trl_messages,
                answers=({"messages": "revised"},),
            ),
            "prompt-completion": _prompted({"completion": "revised"}, rendered=False),
            "standard": _prompted({"completion": "revised"}, rendered=True),
        },
    ),
    Format("kto", _both({"completion": "revised"}, {"completion": "initial"}, label=True)),
    Format("tpo", _both(_TRIPLE)),
    Format(
        "sdft",
        {
            "conversational": Variant(
                rows.privileged,
                {"prompt": MESSAGES, "privileged_context": _TEXT},
                _READ_TEXTS,
                trainer=trainers.trl_prompt,
                answers=({"prompt": "prompt"},),
            )
        },
    ),
    Format(
        "sequences",
        {"sequences": Variant(rows.sequences, {"input_ids": _IDS, "labels": _IDS, "loss_weights": _WEIGHTS})},
    ),
    Format("axolotl", {"revised": Variant(rows.axolotl, _LISTS), "edits": Variant(rows.axolotl_edits, _LISTS)}),
    Format(
        "tinker",
        {
            "pairs": Variant(rows.datum, {}, file="train.jsonl"),
            "revised": Variant(rows.datum_revised, {}, file="train.jsonl"),
        },
    ),
    Format(
        "tis-dpo",
        {
            "tokens": Variant(
                rows.weighted,
                dict.fromkeys(("prompt_ids", "chosen_ids", "rejected_ids"), _IDS)
                | dict.fromkeys(("chosen_weight", "rejected_weight"), _WEIGHTS),
            ),
            "authors": Variant(
                rows.tis_authors,
                {},
                (*_READ_TEXTS, *_READ_LABELS),
                "train.jsonl",
                trainer=trainers.tis_dpo,
                answers=(PREFERENCE,),
                rendered=True,
            ),
        },
    ),
    Format("openrlhf", _both(PREFERENCE, trainer=trainers.openrlhf, margin=True)),
    Format(
        "llamafactory",
        {
            "sharegpt": Variant(
                rows.sharegpt,
                {"conversations": pa.list_(_TURN), "chosen": _TURN, "rejected": _TURN},
                _READ_TEXTS,
                "data.json",
                trainer=trainers.llamafactory,
                answers=(PREFERENCE,),
                unfit=rows.unfit_for_llamafactory,
                companions={"dataset_info.json": {DATASET: _DATASET_INFO}},
            ),
            "tokenized": Variant(
                rows.tokenized,
                {f"{name}_{kind}": _IDS for name in PREFERENCE for kind in _LISTS} | dict.fromkeys(MEDIA, pa.null()),
            ),
        },
    ),
)
FORMATS = {format.name: format for format in _ALL}
