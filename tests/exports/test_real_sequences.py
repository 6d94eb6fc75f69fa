"""Tokenizers and chat templates in use: labels are what the template writes, exports are what the labels say, or are refused.

TRL's own code says what it makes of a row; for the others `exports.trainers` does, after their sources.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from pipeline.config.settings import LabelSettings
from pipeline.errors import ConfigError, RowReject, UsageError
from pipeline.exports import formats
from pipeline.exports.checking import Checker
from pipeline.labels.columns import label_texts
from pipeline.labels.loading import open_plain, open_tokenizer
from pipeline.schema import PUBLISHED
from tests.labels.real import PAIRS, real_tokenizer
from tests.pairs import pairs

# Formats that no variant with texts can serve, by why.
REFUSED = {
    # The trainer would write the day of the training.
    "llama3_2": {"conversational", "messages", "prompt-completion", "sharegpt", "authors"},
    "gptoss": {"conversational", "messages", "prompt-completion", "sharegpt"},
}


def rows() -> list[dict[str, Any]]:
    """Six pairs; one with a system prompt and an earlier answer."""
    made = list(pairs(6))
    history = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
    ]
    made[0]["messages"] = history + made[0]["messages"]
    return made


@pytest.fixture(scope="module", params=PAIRS)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A tokenizer for the labels, one as trainers have it, and labelled pairs."""
    name, template, options = PAIRS[request.param]
    folder = real_tokenizer(name, template, tmp_path_factory.mktemp("real") / request.param)
    labels = open_tokenizer(str(folder), LabelSettings(**options))
    names = [name for name in PUBLISHED.names if name in rows()[0]]
    table = pa.Table.from_pylist(rows(), schema=pa.schema([PUBLISHED.field(name) for name in names]))
    made = label_texts(table, labels)
    assert not made.rejects, "no template may lose a row"
    return SimpleNamespace(
        name=request.param, labels=labels, plain=open_plain(str(folder)), pairs=made.rows.to_pylist(), options=options
    )


def test_labels_are_what_the_chat_template_writes_up_to_the_end_token(
    opened: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pinned(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls(2026, 1, 31)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Pinned)
    for pair in opened.pairs:
        for side in ("revised", "initial"):
            whole = [*pair["messages"], {"role": "assistant", "content": pair[side]}]
            options = opened.options.get("template_options", {})
            ids = opened.plain.apply_chat_template(whole, tokenize=True, return_dict=True, **options)["input_ids"]
            published = pair[f"{side}_input_ids"]
            assert ids[: len(published)] == published


@pytest.mark.parametrize("name", formats.FORMATS)
def test_a_trainer_sees_the_published_sequences_or_the_export_is_refused(opened: SimpleNamespace, name: str) -> None:
    format = formats.FORMATS[name]
    for variant, layout in format.variants.items():
        if not layout.answers:
            continue
        checker = Checker(format, variant, opened.labels, opened.plain)
        try:
            checker.probe(opened.pairs)
        except UsageError as error:
            working = str(error).split("; ")[-1]
            assert "--variant" in working or "--format sequences" in working
            assert variant in REFUSED.get(opened.name, {variant})
            continue
        for pair in opened.pairs:
            try:
                made = checker.convert(pair)
            except RowReject as reject:
                # LLaMA-Factory writes system turns in its own way, TIS-DPO's authors have none: skipped.jsonl has that pair.
                assert reject.reason == "tokenised_otherwise" and pair["messages"][0]["role"] == "system"
                assert name in ("llamafactory", "tis-dpo")
                continue
            check(opened, name, layout, pair, made)


def check(opened: SimpleNamespace, name: str, layout: formats.Variant, pair: dict[str, Any], made: list[Any]) -> None:
    """Compare the published ids with what TRL's own preparation makes of the rows."""
    prompt = len(pair["prompt_input_ids"])
    for number, names in enumerate(layout.answers):
        prepared = by_trl(name, made[number], opened.plain)
        for column, side in names.items():
            if prepared is None or side in ("reference", "prompt"):
                continue
            published = pair[f"{side}_input_ids"]
            ids, start = prepared[column]
            assert ids[: len(published)] == published and start in (prompt, None)
            assert len(ids) == len(published) or not layout.rendered


def by_trl(name: str, row: dict[str, Any], tokenizer: Any) -> dict[str, Any] | None:
    """The ids of each answer with its prompt, and where it begins, from the trainer's own code; None for other trainers."""
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list([row])
    if name == "sft":
        own = SimpleNamespace(_tokenizer=tokenizer, chat_template=None, completion_only_loss="prompt" in row)
        config = SimpleNamespace(
            dataset_num_proc=None,
            dataset_text_field="text",
            assistant_only_loss=False,
            max_length=None,
            shuffle_dataset=False,
        )
        made = trl.SFTTrainer._prepare_dataset(own, data, tokenizer, config, False, None, "train")[0]
        start = next(place for place, label in enumerate(made["labels"]) if label != -100) if "prompt" in row else None
        return dict.fromkeys(("completion", "messages"), (made["input_ids"], start))
    if name not in ("dpo", "kto", "tpo"):
        return None
    own = SimpleNamespace(_tokenizer=tokenizer, calculate_KL=False, desirable_weight=1.0, undesirable_weight=1.0)
    config = SimpleNamespace(dataset_num_proc=None, max_length=None, truncation_mode="keep_start")
    if name == "tpo":
        from trl.experimental.tpo import TPOTrainer as trainer

        own._tokenize = trainer._tokenize
    else:
        trainer = trl.DPOTrainer if name == "dpo" else trl.KTOTrainer
    made = trainer._prepare_dataset(own, data, tokenizer, config, "train")[0]
    prompt = made["prompt_ids"]
    answers = [column for column in ("chosen", "rejected", "completion") if f"{column}_ids" in made]
    return {column: (prompt + made[f"{column}_ids"], len(prompt)) for column in answers}


@pytest.mark.parametrize("name", ["qwen3_5-think", "qwen3_6"])
def test_a_template_whose_prompt_opens_thoughts_is_refused_with_the_option_that_helps(
    name: str, tmp_path: Path
) -> None:
    tokenizer, template, options = PAIRS[name]
    folder = real_tokenizer(tokenizer, template, tmp_path / name)
    with pytest.raises(ConfigError, match=r'labels\.template_options=\{"enable_thinking": false\}'):
        open_tokenizer(str(folder), LabelSettings())
    assert open_tokenizer(str(folder), LabelSettings(**options))
