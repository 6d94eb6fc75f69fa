"""Each export, opened by its consumer's own loader, holds what was published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest

from pipeline import open_dataset
from pipeline.dataset import manifest
from pipeline.errors import UsageError
from pipeline.exports import formats
from pipeline.exports.formats import DATASET
from pipeline.exports.rows import instruction, unfit_for_llamafactory
from pipeline.exports.writing import export
from pipeline.run import relabel as relabelling
from pipeline.sources import get

ALL = [(name, variant) for name, format in formats.FORMATS.items() for variant in format.variants]
TEXTS = [(name, variant) for name, variant in ALL if "messages" in formats.FORMATS[name].variants[variant].reads]


@pytest.fixture(scope="module")
def rows(published: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = open_dataset(published).to_table().to_pylist()
    return found


def made(published: Path, out: Path, name: str, variant: str | None = None) -> dict[str, Any]:
    return export(open_dataset(published), *formats.get(name, variant), out, lambda *_: None)


def loaded(out: Path, tmp_path: Path) -> datasets.Dataset:
    """As a user of the Hub's library does: by the folder alone, which its README describes."""
    return datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))["train"]


@pytest.mark.parametrize(("name", "variant"), [pair for pair in ALL if pair != ("tis-dpo", "authors")])
def test_every_export_loads_by_its_folder_and_accounts_for_every_pair(
    published: Path, rows: Any, tmp_path: Path, name: str, variant: str
) -> None:
    content = made(published, tmp_path / "out", name, variant)
    assert content["pairs"] == {"read": 40, "exported": 40, "skipped": 0}
    rows_of_two = name in ("kto", "sequences") or (name, variant) == ("tinker", "pairs")
    assert len(loaded(tmp_path / "out", tmp_path)) == (80 if rows_of_two else 40)
    assert json.loads((tmp_path / "out" / "export.json").read_text("utf-8")) == content
    readme = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "**Loss.**" in readme and "**A trainer must not**" in readme and f"variant `{variant}`" in readme


def test_spa_has_the_released_fields(published: Path, rows: Any, tmp_path: Path) -> None:
    made(published, tmp_path / "out", "spa")
    found = json.loads((tmp_path / "out" / "data.json").read_text("utf-8"))
    assert found == loaded(tmp_path / "out", tmp_path).to_list()
    assert [list(row) for row in found] == [
        ["instruction", "input", "output", "original_output", "revised_output"]
    ] * 40
    for row, pair in zip(found, rows, strict=True):
        assert row["output"] == pair["reference"] and row["input"] == ""
        assert (row["original_output"], row["revised_output"]) == (pair["initial"], pair["revised"])
        assert row["instruction"] == "\n\n".join(turn["content"] for turn in pair["messages"])
    assert any(len(pair["messages"]) > 1 for pair in rows), "a conversation of several turns must be among them"


def test_spa_reads_back_as_a_source(published: Path, rows: Any, tmp_path: Path) -> None:
    made(published, tmp_path / "out", "spa")
    found = json.loads((tmp_path / "out" / "data.json").read_text("utf-8"))
    for row, pair in zip(found, rows, strict=True):
        read = get("spa").parse(row)
        assert read.messages == [{"role": "user", "content": row["instruction"]}]
        assert (read.reference, read.initial, read.revised) == (pair["reference"], pair["initial"], pair["revised"])


def test_dpo_conversational(published: Path, rows: Any, tmp_path: Path) -> None:
    made(published, tmp_path / "out", "dpo")
    for row, pair in zip(loaded(tmp_path / "out", tmp_path), rows, strict=True):
        assert row["prompt"] == pair["messages"]
        assert row["chosen"] == [{"role": "assistant", "content": pair["revised"]}]
        assert row["rejected"] == [{"role": "assistant", "content": pair["initial"]}]


def test_standard_texts_tokenise_to_the_published_ids(
    published: Path, rows: Any, tmp_path: Path, tiny_tokenizer: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer)
    made(published, tmp_path / "dpo", "dpo", "standard")
    made(published, tmp_path / "sft", "sft", "standard")
    preferences, revisions = (loaded(tmp_path / name, tmp_path) for name in ("dpo", "sft"))
    for preference, revision, pair in zip(preferences, revisions, rows, strict=True):
        for answer, side in ((preference["chosen"], "revised"), (preference["rejected"], "initial")):
            ids = tokenizer(preference["prompt"] + answer + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
            assert ids == pair[f"{side}_input_ids"]
        assert revision == {"prompt": preference["prompt"], "completion": preference["chosen"]}


def test_sft_messages_and_prompt_completion(published: Path, rows: Any, tmp_path: Path) -> None:
    made(published, tmp_path / "messages", "sft")
    made(published, tmp_path / "split", "sft", "prompt-completion")
    whole, split = (loaded(tmp_path / name, tmp_path) for name in ("messages", "split"))
    for one, two, pair in zip(whole, split, rows, strict=True):
        answer = [{"role": "assistant", "content": pair["revised"]}]
        assert one == {"messages": pair["messages"] + answer}
        assert two == {"prompt": pair["messages"], "completion": answer}


def test_sequences_are_the_published_lists_bit_for_bit(published: Path, tmp_path: Path) -> None:
    made(published, tmp_path / "out", "sequences")
    found = loaded(tmp_path / "out", tmp_path).with_format("arrow")[:]
    stored = open_dataset(published).to_table()
    assert found.column_names == ["input_ids", "labels", "loss_weights"]
    assert found.schema.field("input_ids").type == pa.list_(pa.int32())
    assert found.schema.field("loss_weights").type == pa.list_(pa.float32())
    for first, side in ((0, "revised"), (1, "initial")):
        part = found.take(list(range(first, found.num_rows, 2)))
        for name, field in (("input_ids", "input_ids"), ("labels", "labels"), ("loss_weights", "weights")):
            assert part[name].combine_chunks().equals(stored[f"{side}_{field}"].combine_chunks())


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_datums_are_the_published_sequences_shifted_by_one(published: Path, rows: Any, tmp_path: Path) -> None:
    """By Tinker's documented `Datum`, and by its own class where that is installed."""
    made(published, tmp_path / "out", "tinker")
    found = json_lines(tmp_path / "out" / "train.jsonl")
    sequences = [(row, side) for row in rows for side in ("revised", "initial")]
    for datum, (row, side) in zip(found, sequences, strict=True):
        ids, inputs = row[f"{side}_input_ids"], datum["loss_fn_inputs"]
        assert datum["model_input"]["chunks"] == [{"type": "encoded_text", "tokens": ids[:-1]}]
        assert inputs["target_tokens"] == {"data": ids[1:], "dtype": "int64", "shape": [len(ids) - 1]}
        assert inputs["weights"]["data"] == row[f"{side}_weights"][1:]
    made(published, tmp_path / "revised", "tinker", "revised")
    assert json_lines(tmp_path / "revised" / "train.jsonl") == found[::2]
    tinker = pytest.importorskip("tinker")
    first = found[0]
    tensors = {name: tinker.TensorData(**value) for name, value in first["loss_fn_inputs"].items()}
    model_input = tinker.ModelInput.from_ints(first["model_input"]["chunks"][0]["tokens"])
    datum = tinker.Datum(model_input=model_input, loss_fn_inputs=tensors)
    assert datum.model_input.length == len(tensors["weights"].data) == len(tensors["target_tokens"].data)


def test_tis_dpo_has_a_weight_for_each_response_token(published: Path, rows: Any, tmp_path: Path) -> None:
    made(published, tmp_path / "out", "tis-dpo")
    for row, pair in zip(loaded(tmp_path / "out", tmp_path), rows, strict=True):
        for name, side in (("chosen", "revised"), ("rejected", "initial")):
            assert row["prompt_ids"] + row[f"{name}_ids"] == pair[f"{side}_input_ids"]
            assert [0] * len(row["prompt_ids"]) + row[f"{name}_weight"] == [abs(w) for w in pair[f"{side}_weights"]]
    with pytest.raises(UsageError, match="--variant tokens"):
        made(published, tmp_path / "authors", "tis-dpo", "authors")  # an EOS ends every turn of the prompt


def test_tis_dpo_for_the_authors_trainer(published: Path, tmp_path: Path) -> None:
    config = relabelling.relabel_settings(manifest.load(published) or {}, [], {"labels.template": "plain"})
    relabelling.relabel(published, tmp_path / "set", config.labels, advance=lambda rows: None, warn=print)
    made(tmp_path / "set", tmp_path / "out", "tis-dpo", "authors")
    pairs = open_dataset(tmp_path / "set").to_table().to_pylist()
    for row, pair in zip(json_lines(tmp_path / "out" / "train.jsonl"), pairs, strict=True):
        assert (row["chosen"], row["rejected"]) == (pair["revised"], pair["initial"])
        prompt = len(pair["prompt_input_ids"])
        # Their loader changes the sign of the first, and appends the EOS.
        assert [-weight for weight in row["chosen_weight"]] == pair["revised_weights"][prompt:-1]
        assert row["rejected_weight"] == [abs(weight) for weight in pair["initial_weights"][prompt:-1]]


def test_dpo_has_reference_and_margin_where_there_are_rewards(published: Path, rows: Any, tmp_path: Path) -> None:
    made(published, tmp_path / "out", "dpo")
    for row, pair in zip(loaded(tmp_path / "out", tmp_path), rows, strict=True):
        assert row["reference"] == [{"role": "assistant", "content": pair["reference"]}]
        assert row["margin"] == pytest.approx(pair["reward_revised"] - pair["reward_initial"], abs=1e-6)


def check_llamafactory_row(row: dict[str, Any]) -> None:
    """The rules of LLaMA-Factory's data/README.md and of its ShareGPT converter for `ranking` data sets."""
    assert set(row) == {"conversations", "chosen", "rejected"}
    turns = row["conversations"]
    spoken = turns[1:] if turns[0]["from"] == "system" else turns
    assert len(spoken) % 2 == 1
    assert all(turn["from"] == ("human", "gpt")[place % 2] for place, turn in enumerate(spoken))
    for answer in (row["chosen"], row["rejected"]):
        assert set(answer) == {"from", "value"} and answer["from"] == "gpt" and answer["value"]


def test_llamafactory_by_its_documented_rules(published: Path, rows: Any, tmp_path: Path) -> None:
    made(published, tmp_path / "out", "llamafactory")
    info = json.loads((tmp_path / "out" / "dataset_info.json").read_text("utf-8"))[DATASET]
    assert info["formatting"] == "sharegpt" and info["ranking"] is True
    found = json.loads((tmp_path / "out" / info["file_name"]).read_text("utf-8"))
    for row, pair in zip(found, rows, strict=True):
        check_llamafactory_row(row)
        assert set(info["columns"].values()) == set(row)
        assert [turn["value"] for turn in row["conversations"]] == [turn["content"] for turn in pair["messages"]]
        assert (row["chosen"]["value"], row["rejected"]["value"]) == (pair["revised"], pair["initial"])


@pytest.mark.parametrize(
    ("roles", "fits"),
    [
        ("user", True),
        ("system user", True),
        ("user assistant user", True),
        ("system user assistant user", True),
        ("user user", False),
        ("user assistant", False),
        ("user system user", False),
        ("user assistant system user", False),
        ("system", False),
    ],
)
def test_what_llamafactory_would_not_take(roles: str, fits: bool) -> None:
    pair = {"messages": [{"role": role, "content": role} for role in roles.split()]}
    assert (unfit_for_llamafactory(pair) is None) == fits


@pytest.mark.parametrize(
    "text", ['"quoted"\\', "a\r\nb\u2028c", "\x00\x1b[31m", "👩‍👩‍👧 e\u0301", "</script>{x}{{7*7}}", "שלום"]
)
@pytest.mark.parametrize(("name", "variant"), [pair for pair in TEXTS if pair[0] != "tis-dpo"])
def test_hostile_text_is_data(name: str, variant: str, text: str) -> None:
    """Through conversion and JSON: every text comes out once, as it went in."""
    pair = {"messages": [{"role": "user", "content": text}], "reward_initial": 0.0, "reward_revised": 1.0}
    pair |= dict.fromkeys(("reference", "initial", "revised"), text)
    pair["texts"] = dict.fromkeys(("prompt", "reference", "initial", "revised"), text)
    rows = formats.get(name)[0].variants[variant].convert(pair)
    texts = leaves(json.loads(json.dumps(rows, ensure_ascii=False)))
    counts = {"spa": 4, "dpo": 4, "tpo": 4, "sft": 2, "kto": 4, "sdft": 2, "openrlhf": 3, "llamafactory": 3}
    assert texts.count(text) == counts[name]


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict | list):
        return [leaf for part in (value.values() if isinstance(value, dict) else value) for leaf in leaves(part)]
    return [value]


def test_spa_joins_turns_as_the_alpaca_prompt_of_the_labels_does(tiny_tokenizer: Path) -> None:
    from pipeline.config.settings import LabelSettings
    from pipeline.labels.loading import load_tokenizer

    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    prompt = load_tokenizer(tiny_tokenizer, LabelSettings(template="alpaca"), "tiny").render(messages)
    assert f"### Instruction:\n{instruction(messages)}\n" in prompt


@pytest.mark.parametrize(("name", "variant"), [pair for pair in TEXTS if pair[0] not in ("spa", "tis-dpo")])
def test_queries_are_exported_with_the_system_prompt_that_the_policy_had(
    published: Path, tmp_path: Path, name: str, variant: str
) -> None:
    told = {"labels.system": "You are a pirate."}
    config = relabelling.relabel_settings(manifest.load(published) or {}, [], told)
    relabelling.relabel(published, tmp_path / "set", config.labels, advance=lambda rows: None, warn=print)
    made(tmp_path / "set", tmp_path / "out", name, variant)
    rows = loaded(tmp_path / "out", tmp_path).to_list()
    assert all("You are a pirate." in json.dumps(row) for row in rows) and len(rows) in (40, 80)
    assert "before queries without a system prompt stands this one: You are a pirate." in (
        tmp_path / "set" / "README.md"
    ).read_text("utf-8")
