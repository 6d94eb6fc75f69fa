"""FigaTrainer: exact over micro-batches and processes, and it learns."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, child_environment
from tests.training.tiny import EOS, flat, pairs, quiet, step, tiny_llama

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from transformers import TrainingArguments  # noqa: E402

from pipeline.training import FigaCollator, FigaTrainer, figa_loss  # noqa: E402
from pipeline.training.collator import COLUMNS  # noqa: E402
from pipeline.training.loss import figa_terms, weighted_positions  # noqa: E402
from pipeline.training.recipe import edit_logprobs  # noqa: E402

Policy = dict[str, Any]


def policy_model(policy: Policy) -> Any:
    model = tiny_llama()
    model.load_state_dict(policy)
    return model


CLIPPED, UNCLIPPED = 1.0, 0.0


@pytest.fixture(scope="module")
def by_hand(published: Path, policy: Policy) -> dict[float, tuple[Any, float]]:
    """Parameters after one step on sixteen pairs as one batch, written out without any trainer; and the loss.

    With clipped gradients and without: clipping forgives a wrong scale, but only if that came before.
    """
    batch = FigaCollator(EOS)(list(pairs(published, 16)))
    labels, weights = batch["labels"], batch["loss_weights"]
    found = {}
    for clip in (CLIPPED, UNCLIPPED):
        model = policy_model(policy)
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        counted = figa_terms(logits, labels, weights)[1]
        good = ((weights > 0) & (labels != -100)).sum()
        assert good < counted < weighted_positions(labels, weights).sum(), (
            "the gate must be open for some bad tokens only"
        )
        loss = figa_loss(logits, labels, weights)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip or math.inf)
        assert norm > CLIPPED, "the clipped step must be another one"
        torch.optim.SGD(model.parameters(), lr=0.1).step()
        found[clip] = flat(model), loss.item()
    return found


# Five pairs at a time, four times, leave one for the last micro-batch.
@pytest.mark.parametrize("clip", [CLIPPED, UNCLIPPED])
@pytest.mark.parametrize(("per_device", "accumulated"), [(16, 1), (4, 4), (5, 4)])
def test_a_step_is_the_same_however_it_is_cut(
    published: Path, policy: Policy, by_hand: Any, tmp_path: Path, per_device: int, accumulated: int, clip: float
) -> None:
    model = policy_model(policy)
    loss = step(
        model,
        pairs(published, 16),
        tmp_path,
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=accumulated,
        max_grad_norm=clip,
    )
    expected, expected_loss = by_hand[clip]
    torch.testing.assert_close(flat(model), expected, rtol=0, atol=2e-6)
    assert (flat(model) - flat(policy_model(policy))).abs().max() > 1e-3
    # The log is rounded.
    assert loss == pytest.approx(expected_loss, rel=1e-3)


@pytest.mark.slow
def test_a_step_is_the_same_on_two_processes(published: Path, policy: Policy, by_hand: Any, tmp_path: Path) -> None:
    torch.save(policy, tmp_path / "policy.pt")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, "-m", "tests.training.tiny", str(published), str(tmp_path / "policy.pt"), str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=child_environment(OMP_NUM_THREADS="1", ACCELERATE_USE_CPU="true"),
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in (0, 1):
        made = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert made["world"] == 2
        torch.testing.assert_close(made["parameters"], by_hand[UNCLIPPED][0], rtol=0, atol=2e-6)
        assert made["loss"] == pytest.approx(by_hand[UNCLIPPED][1], rel=1e-3)


@pytest.mark.parametrize(("start", "rate"), [("policy", 3e-3), ("random", 1e-2)])
def test_it_overfits_sixteen_pairs(published: Path, policy: Policy, tmp_path: Path, start: str, rate: float) -> None:
    """Also from random weights, where the gate is closed to every mistake: what goes up takes from what is wrong."""
    model, dataset = policy_model(policy) if start == "policy" else tiny_llama(), pairs(published, 16)
    batches = [FigaCollator(EOS)(list(dataset))]
    before = edit_logprobs(model, batches)
    changes = {"optim": "adamw_torch", "learning_rate": rate, "max_steps": 16, "per_device_train_batch_size": 16}
    step(model, dataset, tmp_path, **changes)
    after = edit_logprobs(model, batches)
    assert before["good"] + 3 < after["good"]
    assert after["bad"] + 1 < before["bad"]


def test_columns_the_loss_needs_are_kept_and_texts_are_not(published: Path, tmp_path: Path) -> None:
    dataset = pairs(published, 2)
    arguments = TrainingArguments(**quiet(tmp_path))
    assert arguments.remove_unused_columns, "transformers' default, under which other trainers lose the weights"
    trainer = FigaTrainer(tiny_llama(), arguments, FigaCollator(EOS), train_dataset=dataset)
    batch = next(iter(trainer.get_train_dataloader()))
    assert set(batch) == {"input_ids", "attention_mask", "labels", "loss_weights"}
    assert set(trainer._remove_unused_columns(dataset).column_names) == set(COLUMNS)


def test_evaluation_uses_the_batch_s_own_count(published: Path, policy: Policy, tmp_path: Path) -> None:
    model, dataset = policy_model(policy), pairs(published, 4)
    arguments = TrainingArguments(**quiet(tmp_path, per_device_eval_batch_size=4))
    trainer = FigaTrainer(model, arguments, FigaCollator(EOS), eval_dataset=dataset)
    batch = FigaCollator(EOS)(list(dataset))
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = figa_loss(logits, batch["labels"], batch["loss_weights"]).item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_the_gate_is_the_trainer_s_argument(published: Path, policy: Policy, tmp_path: Path) -> None:
    dataset = pairs(published, 4)
    losses = set()
    for gate in (0.0, math.inf):
        arguments = TrainingArguments(**quiet(tmp_path, per_device_eval_batch_size=4))
        model = policy_model(policy)
        trainer = FigaTrainer(model, arguments, FigaCollator(EOS), eval_dataset=dataset, gate=gate)
        losses.add(trainer.evaluate()["eval_loss"])
    assert len(losses) == 2
