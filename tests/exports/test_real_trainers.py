"""The recipes of examples/ by the trainers themselves, on a CPU: what their collators hand to the model is what was published.

They don't install beside ours. Each test runs where a variable names a Python that has the trainer:
FIGA_LLAMAFACTORY (LLaMA-Factory 0.9.5).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from examples.llamafactory import prepare
from pipeline import open_dataset
from pipeline.exports import formats
from pipeline.exports.writing import export
from tests.conftest import ROOT
from tests.training.tiny import tiny_llama

pytestmark = pytest.mark.slow
PYTHONS = {name: os.environ.get(f"FIGA_{name.upper()}") for name in ("llamafactory",)}
# Runs in the trainer's Python: keeps the sequences of each batch without their padding.
RECORD = """
import json
def record(collator):
    collate, seen = collator.__call__, []
    def recorded(self, features, *others, **options):
        batch = collate(self, features, *others, **options)
        columns = (batch[name].tolist() for name in ("input_ids", "attention_mask", "labels"))
        for ids, mask, labels in zip(*columns):
            length = sum(map(bool, mask))
            assert all(mask[:length]) and set(labels[length:]) <= {-100}, "padding has no label"
            seen.append([ids[:length], labels[:length]])
        with open("seen.json", "w") as file:
            json.dump(seen, file)
        return batch
    collator.__call__ = recorded
"""
LLAMAFACTORY = """
from llamafactory.data.collator import PairwiseDataCollatorWithPadding
from llamafactory.train.tuner import run_exp
record(PairwiseDataCollatorWithPadding)
run_exp()
"""


@pytest.fixture
def model(tiny_tokenizer: Path, tmp_path: Path) -> Path:
    """A tiny random model with the tokenizer of the labels, as a folder."""
    pytest.importorskip("torch")
    from transformers import AutoTokenizer

    tiny_llama().save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(tiny_tokenizer).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def seen(name: str, code: str, arguments: list[str], folder: Path) -> list[Any]:
    """Trains in `folder`, as a user does in the top folder; returns the sequences of all batches, as ids and labels."""
    python = PYTHONS[name]
    if not python:
        pytest.skip(f"FIGA_{name.upper()} does not name a Python that has it")
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | quiet
    command = [str(Path(python).absolute()), "-c", RECORD + code, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[Any] = json.loads((folder / "seen.json").read_text("utf-8"))
    return sorted(found)


def sequences(published: Path, *sides: str) -> list[Any]:
    rows = open_dataset(published).to_table().to_pylist()
    return sorted([row[f"{side}_input_ids"], row[f"{side}_labels"]] for row in rows for side in sides)


def trained(folder: Path, model: Path) -> bool:
    """Whether the trainer logged a loss of more than a step, and saved other weights than it was given."""
    (state,) = folder.glob("checkpoint-*/trainer_state.json")
    weights = [path.read_bytes() for path in (folder / "model.safetensors", model / "model.safetensors")]
    return json.loads(state.read_text("utf-8"))["global_step"] > 1 and weights[0] != weights[1]


@pytest.mark.parametrize("variant", ["sharegpt", "tokenized"])
def test_llamafactory(published: Path, model: Path, tmp_path: Path, variant: str) -> None:
    out = tmp_path / "out" / "llamafactory"
    export(open_dataset(published), *formats.get("llamafactory", variant), out, lambda *_: None)
    arguments = [str(ROOT / "examples" / "llamafactory" / "dpo.yaml"), f"model_name_or_path={model}"]
    arguments += ["bf16=false", "use_cpu=true", "num_train_epochs=1"]
    if variant == "tokenized":
        prepare.main(str(out))
    else:
        arguments += ["tokenized_path=null", f"dataset_dir={out}"]
    found = seen("llamafactory", LLAMAFACTORY, arguments, tmp_path)
    expected = sequences(published, "revised", "initial")
    if variant == "sharegpt":
        # The chat template ends turns with a line feed, which it labels; the published sequences end with the EOS.
        (newline,) = {ids[-1] for ids, _ in found}
        expected = [[ids + [newline], labels + [newline]] for ids, labels in expected]
    assert found == expected
    assert trained(tmp_path / "out" / "llamafactory-model", model)
