"""From a published pair to the rows of each format. A pair is a row of the data set; `texts`, where a function reads them, are
the exact texts of the labels: of the prompt and of each side's answer.
"""

from pipeline.exports.trainers import Row

PREFERENCE = {"chosen": "revised", "rejected": "initial"}
MEDIA = ("images", "videos", "audios")
_SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt"}
_IGNORE = -100


def unfit_for_llamafactory(pair: Row) -> str | None:
    """Why LLaMA-Factory would empty the pair with no more than a warning: turns must alternate, and end with the user's."""
    roles = [turn["role"] for turn in pair["messages"]]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    expected = [("user", "assistant")[place % 2] for place in range(len(spoken))]
    return None if spoken == expected and len(spoken) % 2 else "turns_do_not_alternate"


def instruction(messages: list[dict[str, str]]) -> str:
    """A conversation as one instruction, joined as the Alpaca prompt of the labels joins it."""
    return "\n\n".join(message["content"] for message in messages)


def answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def margin(pair: Row) -> float | None:
    rewards = pair["reward_revised"], pair["reward_initial"]
    return None if None in rewards else rewards[0] - rewards[1]


def messages(pair: Row) -> list[Row]:
    return [{"messages": [*pair["messages"], *answer(pair["revised"])]}]


def privileged(pair: Row) -> list[Row]:
    return [{"prompt": pair["messages"], "privileged_context": pair["reference"]}]


def spa(pair: Row) -> list[Row]:
    texts = {"output": "reference", "original_output": "initial", "revised_output": "revised"}
    start = {"instruction": instruction(pair["messages"]), "input": ""}
    return [start | {name: pair[side] for name, side in texts.items()}]


def sharegpt(pair: Row) -> list[Row]:
    turns = [{"from": _SHAREGPT_ROLES[turn["role"]], "value": turn["content"]} for turn in pair["messages"]]
    answers = {name: {"from": "gpt", "value": pair[side]} for name, side in PREFERENCE.items()}
    return [{"conversations": turns, **answers}]


def tokenized(pair: Row) -> list[Row]:
    row: Row = {}
    for name, side in PREFERENCE.items():
        ids = pair[f"{side}_input_ids"]
        row |= {f"{name}_input_ids": ids, f"{name}_attention_mask": [1] * len(ids)}
        row[f"{name}_labels"] = pair[f"{side}_labels"]
    return [row | dict.fromkeys(MEDIA)]


def sequences(pair: Row) -> list[Row]:
    names = {"input_ids": "input_ids", "labels": "labels", "weights": "loss_weights"}
    return [{name: pair[f"{side}_{kind}"] for kind, name in names.items()} for side in ("revised", "initial")]


def axolotl(pair: Row) -> list[Row]:
    ids = pair["revised_input_ids"]
    return [{"input_ids": ids, "attention_mask": [1] * len(ids), "labels": pair["revised_labels"]}]


def axolotl_edits(pair: Row) -> list[Row]:
    weighted = zip(pair["revised_labels"], pair["revised_weights"], strict=True)
    return [axolotl(pair)[0] | {"labels": [label if weight > 0 else _IGNORE for label, weight in weighted]}]


def datum(pair: Row) -> list[Row]:
    return [_datum(pair, side) for side in ("revised", "initial")]


def datum_revised(pair: Row) -> list[Row]:
    return [_datum(pair, "revised")]


def _datum(pair: Row, side: str) -> Row:
    ids = pair[f"{side}_input_ids"]
    targets = {"target_tokens": (ids[1:], "int64"), "weights": (pair[f"{side}_weights"][1:], "float32")}
    return {
        "model_input": {"chunks": [{"type": "encoded_text", "tokens": ids[:-1]}]},
        "loss_fn_inputs": {
            name: {"data": values, "dtype": dtype, "shape": [len(values)]} for name, (values, dtype) in targets.items()
        },
    }


def weighted(pair: Row) -> list[Row]:
    """Importance weights of response tokens: how much each one counts, without the sign of its side."""
    prompt = len(pair["prompt_input_ids"])
    row: Row = {"prompt_ids": pair["prompt_input_ids"]}
    for name, side in PREFERENCE.items():
        row[f"{name}_ids"] = pair[f"{side}_input_ids"][prompt:]
        row[f"{name}_weight"] = [abs(weight) for weight in pair[f"{side}_weights"][prompt:]]
    return [row]


def tis_authors(pair: Row) -> list[Row]:
    row: Row = {"prompt": pair["texts"]["prompt"]}
    # Their loader changes the sign of the chosen answer's weights, and gives the EOS that it appends the weight 0.
    for (name, side), sign in zip(PREFERENCE.items(), (-1, 1), strict=True):
        row[name] = pair["texts"][side]
        row[f"{name}_weight"] = [sign * weight for weight in weighted(pair)[0][f"{name}_weight"][:-1]]
    return [row]
