"""TRL's own trainers on our exports: SFTTrainer with FIGA's loss from `sequences`, DPOTrainer from `dpo`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from pipeline import open_dataset
from pipeline.exports import formats
from pipeline.exports.writing import export
from tests.training.tiny import EOS, flat, quiet, tiny_llama

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from datasets import load_dataset  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer  # noqa: E402

from pipeline.training import FigaCollator, figa_loss  # noqa: E402
from pipeline.training.trl_recipe import FigaSFTTrainer, figa_arguments  # noqa: E402


def exported(published: Path, tmp_path: Path, name: str, variant: str | None = None) -> Any:
    export(open_dataset(published), *formats.get(name, variant), tmp_path / name, lambda *_: None)
    return load_dataset(str(tmp_path / name), cache_dir=str(tmp_path / "cache"))["train"]


def losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_sft_trainer_with_our_loss(published: Path, policy: Any, tiny_tokenizer: Path, tmp_path: Path) -> None:
    sequences = exported(published, tmp_path, "sequences").select(range(8))
    model = tiny_llama()
    model.load_state_dict(policy)
    before = flat(model)
    batch = FigaCollator(EOS)(list(sequences))
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = figa_loss(logits, batch["labels"], batch["loss_weights"]).item()
    trainer = FigaSFTTrainer(
        model,
        SFTConfig(**quiet(tmp_path, max_steps=2, per_device_train_batch_size=8), **figa_arguments()),
        data_collator=FigaCollator(EOS),
        train_dataset=sequences,
        processing_class=AutoTokenizer.from_pretrained(tiny_tokenizer),
    )
    assert isinstance(trainer, SFTTrainer)
    trainer.train()
    # The first loss is that of all eight sequences before any step: the weights arrived, whole.
    assert losses(trainer)[0] == pytest.approx(expected, rel=1e-3)
    assert losses(trainer)[1] < losses(trainer)[0]
    assert not torch.equal(flat(model), before)


@pytest.mark.parametrize("variant", ["conversational", "standard"])
def test_dpo_trainer_from_the_dpo_export(published: Path, tiny_tokenizer: Path, tmp_path: Path, variant: str) -> None:
    preferences = exported(published, tmp_path, "dpo", variant).select(range(4))
    model = tiny_llama()
    before = flat(model)
    trainer = DPOTrainer(
        model,
        ref_model=tiny_llama(),
        args=DPOConfig(**quiet(tmp_path, max_steps=2, per_device_train_batch_size=4), max_length=None),
        train_dataset=preferences,
        processing_class=AutoTokenizer.from_pretrained(tiny_tokenizer),
    )
    stored = open_dataset(published).to_table(["prompt_input_ids", "revised_input_ids", "initial_input_ids"])
    for prepared, row in zip(trainer.train_dataset, stored.to_pylist(), strict=False):
        prompt = row["prompt_input_ids"]
        assert prepared["prompt_ids"] == prompt
        # The chat template adds a line break behind the end of turn, which a label never covers.
        assert (prompt + prepared["chosen_ids"])[: len(row["revised_input_ids"])] == row["revised_input_ids"]
        assert (prompt + prepared["rejected_ids"])[: len(row["initial_input_ids"])] == row["initial_input_ids"]
    trainer.train()
    assert losses(trainer)[0] == pytest.approx(math.log(2), abs=1e-3)
    assert losses(trainer)[1] < losses(trainer)[0]
    assert not torch.equal(flat(model), before)


@pytest.mark.parametrize("variant", ["conversational", "standard"])
@pytest.mark.parametrize("name", ["kto", "tpo"])
def test_kto_and_tpo_trainers_train_on_their_exports(
    published: Path, tiny_tokenizer: Path, tmp_path: Path, name: str, variant: str
) -> None:
    from trl import KTOConfig, KTOTrainer
    from trl.experimental.tpo import TPOConfig, TPOTrainer

    rows = exported(published, tmp_path, name, variant).select(range(4))
    config, kind = {"kto": (KTOConfig, KTOTrainer), "tpo": (TPOConfig, TPOTrainer)}[name]
    reference = {"ref_model": tiny_llama()} if name == "kto" else {}
    trainer = kind(
        tiny_llama(),
        args=config(**quiet(tmp_path, max_steps=1, per_device_train_batch_size=4), max_length=None),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(tiny_tokenizer),
        **reference,
    )
    stored = (
        open_dataset(published).to_table(["prompt_input_ids", "revised_input_ids", "initial_input_ids"]).to_pylist()
    )
    for number, prepared in enumerate(trainer.train_dataset):
        row = stored[number // 2] if name == "kto" else stored[number]
        assert prepared["prompt_ids"] == row["prompt_input_ids"]
        sides = {"chosen": "revised", "rejected": "initial"}
        if name == "kto":
            sides = {"completion": "initial" if number % 2 else "revised"}
            assert prepared["label"] == (number % 2 == 0)
        for column, side in sides.items():
            ids = row[f"{side}_input_ids"]
            assert (prepared["prompt_ids"] + prepared[f"{column}_ids"])[: len(ids)] == ids
    trainer.train()
    assert math.isfinite(losses(trainer)[0])


def test_sdft_trainer_generates_from_its_export(published: Path, tiny_tokenizer: Path, tmp_path: Path) -> None:
    from trl.experimental.sdft import SDFTConfig, SDFTTrainer

    rows = exported(published, tmp_path, "sdft").select(range(2))
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer)
    trainer = SDFTTrainer(
        tiny_llama(),
        args=SDFTConfig(
            **quiet(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=1),
            max_prompt_length=None,
            max_completion_length=4,
            num_generations=1,
            teacher_model_kind="live",
        ),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    stored = open_dataset(published).to_table(["prompt_input_ids", "reference"]).to_pylist()
    assert trainer._tokenize_prompts([row["prompt"] for row in rows]) == [row["prompt_input_ids"] for row in stored[:2]]
    assert [row["privileged_context"] for row in rows] == [row["reference"] for row in stored[:2]]
    trainer.train()


@pytest.mark.parametrize("variant", ["prompt-completion", "standard"])
def test_sft_trainer_prepares_the_sft_export_as_the_labels_say(
    published: Path, tiny_tokenizer: Path, tmp_path: Path, variant: str
) -> None:
    revisions = exported(published, tmp_path, "sft", variant).select(range(4))
    trainer = SFTTrainer(
        tiny_llama(),
        args=SFTConfig(**quiet(tmp_path, per_device_train_batch_size=4), max_length=None),
        train_dataset=revisions,
        processing_class=AutoTokenizer.from_pretrained(tiny_tokenizer),
    )
    stored = open_dataset(published).to_table(["revised_input_ids", "revised_labels"])
    for prepared, row in zip(trainer.train_dataset, stored.to_pylist(), strict=False):
        length = len(row["revised_input_ids"])
        assert prepared["input_ids"][:length] == row["revised_input_ids"]
        assert prepared["labels"][:length] == row["revised_labels"]
    trainer.train()
    assert losses(trainer)[0] > 1
