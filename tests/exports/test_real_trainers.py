"""The recipes of examples/ by the trainers themselves, on a CPU: what their collators hand to the model is what was published.

They don't install beside ours. Each test runs where a variable names a Python that has the trainer, `pip install llamafactory`
(0.9.5) or `pip install axolotl` (0.21.0, Python 3.12): FIGA_LLAMAFACTORY=path/to/python, FIGA_AXOLOTL=path/to/python.
"""

from __future__ import annotations

import json
import os
import shutil
from itertools import product
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
from transformers import AutoTokenizer

from examples.llamafactory import prepare
from pipeline import open_dataset
from pipeline.exports import formats
from pipeline.exports.writing import export
from tests.conftest import ROOT
from tests.training.tiny import tiny_llama

pytestmark = pytest.mark.slow
# Runs in the trainer's Python: keeps the sequences of each batch without their padding.
RECORD = """
import json, pathlib
def record(collator):
    collate, seen = collator.__call__, []
    def recorded(self, features, *others, **options):
        batch = collate(self, features, *others, **options)
        columns = (batch[name].tolist() for name in ("input_ids", "attention_mask", "labels"))
        for ids, mask, labels in zip(*columns):
            length = sum(map(bool, mask))
            assert all(mask[:length]) and set(labels[length:]) <= {-100}, "padding has no label"
            seen.append([ids[:length], labels[:length]])
        pathlib.Path("seen.json").write_text(json.dumps(seen))
        return batch
    collator.__call__ = recorded
"""
LLAMAFACTORY = """
from llamafactory.data.collator import PairwiseDataCollatorWithPadding
from llamafactory.train.tuner import run_exp
record(PairwiseDataCollatorWithPadding)
run_exp()
"""
AXOLOTL = """
from axolotl.cli.train import do_cli, fire
from axolotl.utils.collators import DataCollatorForSeq2Seq
record(DataCollatorForSeq2Seq)
fire.Fire(do_cli)
"""


@pytest.fixture
def model(tiny_tokenizer: Path, tmp_path: Path) -> Path:
    """A tiny random model with the tokenizer of the labels, as a folder."""
    pytest.importorskip("torch")
    for part in (tiny_llama(), AutoTokenizer.from_pretrained(tiny_tokenizer)):
        part.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def seen(name: str, recipe: str, code: str, arguments: list[str], folder: Path) -> list[Any]:
    """Trains in `folder`, as a user does in the top folder; returns the sequences of all batches, as ids and labels."""
    python = os.environ.get(f"FIGA_{name.upper()}") or pytest.skip(f"FIGA_{name.upper()} names no Python that has it")
    own = {"PYTHONPATH": "", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "AXOLOTL_DO_NOT_TRACK": "1"}
    command = [str(Path(python).absolute()), "-c", RECORD + code, str(ROOT / "examples" / name / recipe), *arguments]
    done = run(command, check=False, cwd=folder, env=os.environ | own, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return sorted(json.loads((folder / "seen.json").read_text("utf-8")))


def sequences(published: Path, *sides: str, good: bool = False) -> list[Any]:
    """The published ids and labels of these sides; good: labels on tokens with a positive weight alone."""
    found = []
    for row, side in product(open_dataset(published).to_table().to_pylist(), sides):
        ids, labels, weights = (row[f"{side}_{kind}"] for kind in ("input_ids", "labels", "weights"))
        found.append([ids, [n if weight > 0 or not good else -100 for n, weight in zip(labels, weights, strict=True)]])
    return sorted(found)


def trained(folder: Path, model: Path) -> bool:
    """Whether the trainer made more than one step, and saved other weights than it was given."""
    after, before = ((root / "model.safetensors").read_bytes() for root in (folder, model))
    return after != before and not (folder / "checkpoint-1").exists() and any(folder.glob("checkpoint-*"))


@pytest.mark.parametrize("variant", ["sharegpt", "tokenized"])
def test_llamafactory(published: Path, model: Path, tmp_path: Path, variant: str) -> None:
    out = tmp_path / "out" / "llamafactory"
    export(open_dataset(published), *formats.get("llamafactory", variant), out, lambda *_: None)
    arguments = [f"model_name_or_path={model}", "bf16=false", "use_cpu=true", "num_train_epochs=1"]
    expected = sequences(published, "revised", "initial")
    if variant == "tokenized":
        prepare.main(str(out))
        # The recipe's `template: empty` is for those that LLaMA-Factory can't take apart.
        (model / "chat_template.jinja").write_text("{{ messages[0].content }}")
    else:
        arguments += ["tokenized_path=null", "template=null", f"dataset_dir={out}"]
        # The chat template ends turns with a line feed, which it labels; the published sequences end with the EOS.
        newline = AutoTokenizer.from_pretrained(model).encode("\n")
        expected = sorted([ids + newline, labels + newline] for ids, labels in expected)
    assert seen("llamafactory", "dpo.yaml", LLAMAFACTORY, arguments, tmp_path) == expected
    assert trained(tmp_path / "out" / "llamafactory-model", model)


def test_axolotl(published: Path, model: Path, tmp_path: Path) -> None:
    """One variant after the other in the same folder: Axolotl must not read what it prepared of the first."""
    out, arguments = tmp_path / "out" / "axolotl", [f"--base_model={model}", "--bf16=False", "--num_epochs=1"]
    for variant in ("edits", "revised"):
        export(open_dataset(published), *formats.get("axolotl", variant), out, lambda *_: None)
        expected = sequences(published, "revised", good=variant == "edits")
        assert seen("axolotl", "config.yaml", AXOLOTL, arguments, tmp_path) == expected
        assert trained(tmp_path / "out" / "axolotl-model", model)
        shutil.rmtree(out)
