"""The smallest configuration: two steps a method, of a tiny random model, and what its measures are worth."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, SAMPLE, child_environment

pytest.importorskip("torch")

from tests.replication import answers, experiment, report, rows, sets, tasks
from tests.replication.judge import Judge, accuracy
from tests.replication.methods import METHODS
from tests.replication.policy import Policy
from tests.replication.training import Budget
from tests.training.tiny import tiny_llama

pytestmark = pytest.mark.slow
PLAN = experiment.Plan(Budget(2, 4, 1e-3, 512), seeds=1, layers=1, temperature=0.7, most_tokens=4)


@pytest.fixture(scope="module")
def shared() -> rows.Shared:
    pairs = [json.loads(line) for line in SAMPLE.read_text("utf-8").splitlines()]
    last = [[pair[side].rpartition("Assistant: ")[2] for pair in pairs] for side in ("chosen", "rejected")]
    queries = [{"messages": [{"role": "user", "content": f"Say {n}."}], "reference": f"It is {n}."} for n in "123"]
    return rows.Shared(queries, *last)


@pytest.fixture(scope="module")
def ran(published: Path, shared: rows.Shared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("replication")
    experiment.run(folder, tiny_llama, _sets(published, folder), shared, PLAN)
    return folder


def _sets(published: Path, folder: Path) -> dict[str, Path]:
    return {"set": published, "ungated": published, **sets.relabelled(published, folder)}


def _results(ran: Path, published: Path, shared: rows.Shared) -> list[dict[str, Any]]:
    return experiment.results(ran, _sets(published, ran), shared, PLAN)


def test_every_method_trains_and_is_measured(ran: Path, published: Path, shared: rows.Shared) -> None:
    found = {result["method"]: result for result in _results(ran, published, shared)}
    assert set(found) == {experiment.START, *METHODS}
    assert found[experiment.START]["kl"] == pytest.approx(0, abs=1e-6)
    for name in METHODS:
        assert len(found[name]["training"]["losses"]) == 2 and found[name]["kl"] > 1e-6, name
        assert len(found[name]["answers"]) == len(found[name]["reward"]) == 3
    # Same pairs, same seed: only what the method is about may differ.
    assert found["figa"]["training"]["tokens"] == found["dpo"]["training"]["tokens"]
    losses = {name: tuple(result["training"]["losses"]) for name, result in found.items()}
    assert losses["figa"] != losses["figa, bag of words"]
    # A random model is confident in nothing: the gate shuts out the whole negative term.
    assert losses["figa"] == losses["figa, no negative term"] != losses["figa, no gate"]
    assert losses["dpo"][0] == pytest.approx(0.6931, abs=1e-3)


def test_what_is_done_is_not_done_again_and_comes_out_the_same(
    ran: Path, published: Path, shared: rows.Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in (ran / "results").iterdir()}
    gone = ran / "results" / "figa-0.json"
    gone.unlink()
    experiment.run(ran, tiny_llama, _sets(published, ran), shared, PLAN)
    monkeypatch.setattr(experiment, "_Bench", None)
    experiment.run(ran, tiny_llama, _sets(published, ran), shared, PLAN)
    told, was = json.loads(gone.read_text("utf-8")), json.loads(before[gone])
    assert told.pop("cpu_seconds") and was.pop("cpu_seconds") and told == was
    assert all(path.read_bytes() == content for path, content in before.items() if path != gone)
    other = rows.Shared(shared.queries[:2], shared.chosen, shared.rejected)
    assert not experiment.results(ran, _sets(published, ran), other, PLAN)


def test_the_report_names_every_method(ran: Path, published: Path, shared: rows.Shared, tmp_path: Path) -> None:
    found = _results(ran, published, shared)
    known = report.facts(found, _sets(published, ran), shared, PLAN, 0.5)
    page = tmp_path / "replication.md"
    page.write_text(f"# Before\n{report.BEGIN}\nold\n{report.END}\nafter\n", "utf-8")
    part = report.write(found, known, tmp_path)
    assert all(f"| {name} | 1 |" in part for name in METHODS)
    assert page.read_text("utf-8") == f"# Before\n{part}\nafter\n"
    assert (tmp_path / "replication-gains.svg").read_text("utf-8").startswith("<svg")


def test_the_start_can_be_put_back() -> None:
    import torch

    policy = Policy(tiny_llama(), 1)
    hidden = policy.trunk([[1, 2, 3], [4, 5]])
    with torch.no_grad():
        whole = policy.model.model(torch.tensor([[1, 2, 3]])).last_hidden_state[0]
        before = policy.top(hidden)
        torch.testing.assert_close(before[0], whole, atol=2e-2, rtol=2e-2)
        for parameter in policy.restart():
            parameter.mul_(2)
        assert not torch.equal(policy.top(hidden), before)
        policy.restart()
        assert torch.equal(policy.top(hidden), before)


def test_the_judge_learns_what_people_preferred(shared: rows.Shared) -> None:
    better = [f"{word} yes thanks" for word in "abcdefghij"]
    worse = [f"{word} no never" for word in "abcdefghij"]
    assert accuracy(better, worse) == 1
    assert accuracy(worse, worse) == 0
    scores = Judge(shared.chosen, shared.rejected).score(["Talk to a doctor.", ""])
    assert scores.shape == (2,)


def test_an_interval_holds_the_mean_and_shrinks_with_the_spread() -> None:
    import numpy as np

    wide = report.interval(np.array([[0.0, 4.0, -4.0, 8.0], [0.0, 4.0, -4.0, 8.0]]))
    narrow = report.interval(np.full((2, 4), 2.0))
    assert wide.mean == narrow.mean == narrow.low == narrow.high == 2
    assert wide.low < 2 < wide.high


def test_an_answer_does_not_depend_on_the_others_and_is_what_generate_gives() -> None:
    import torch

    model, prompts = tiny_llama().eval(), [[5, 6, 7], [8], [9, 10]]
    together = answers.sample(model, prompts, 1, 6, 1e-4, seed=0)
    for prompt, answer in zip(prompts, together, strict=True):
        ids = torch.tensor([prompt])
        greedy = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)[0]
        expected = [token for token in greedy[len(prompt) :].tolist() if token != 1]
        assert answer == answers.Answer(expected, len(expected) == 6)
    # Ended answers leave the batch; the others go on as they would without them.
    ending = together[0].ids[2]
    for answer, alone in zip(
        answers.sample(model, prompts, ending, 6, 1e-4, seed=0),
        (answers.sample(model, [prompt], ending, 6, 1e-4, seed=0)[0] for prompt in prompts),
        strict=True,
    ):
        assert answer == alone


def test_the_controlled_experiment_runs_at_its_smallest_size(tmp_path: Path) -> None:
    small = "--sizes 4 --seeds 1 --pretraining 5 --steps 2 --queries 6 --methods figa dpo".split()
    command = [sys.executable, "-m", "tests.replication.controlled", "--out", str(tmp_path), *small]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = (tmp_path / "controlled.md").read_text("utf-8")
    assert "| figa |" in told and "right answers less figa's" in told and told.count("| dpo |") == 3


def test_tasks_know_right_answers_slips_and_nearest_corrections() -> None:
    for task in tasks.distinct(200, random.Random(0), set()):
        for answer in task.answers():
            assert task.judge(answer) == "right" and task.correct(answer) == answer
        assert task.judge(task.reference()) == "right"
        if task.slips:
            slipped = task.answers(slip=True)[-1]
            assert task.judge(slipped) == "slip"
            assert task.judge(task.correct(slipped)) == "right"
