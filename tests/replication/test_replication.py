"""The smallest configuration: two steps a method, of a tiny random model, and what its measures are worth."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import ROOT, child_environment

pytest.importorskip("torch")

from pipeline import open_dataset
from pipeline.labels.loading import open_tokenizer, settings_of
from tests.replication import answers, controlled, data, experiment, report, tasks
from tests.replication.experiment import START, Experiment, Plan, Result, Run
from tests.replication.methods import BOTH, METHODS, Method, figa
from tests.replication.policy import Policy
from tests.replication.training import Budget, read_pairs, train
from tests.training.tiny import tiny_llama

pytestmark = pytest.mark.slow
PLAN = Plan(Budget(2, 4, 512), rates=(1e-5, 1e-3), seeds=2, layers=1, temperature=0.7, most_tokens=4)
QUERIES = data.held_out(3, 1)


@pytest.fixture(scope="module")
def ran(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    import torch

    torch.set_num_threads(1)
    made = Experiment(tmp_path_factory.mktemp("replication"), published, QUERIES, PLAN)
    made.run(tiny_llama)
    return made


def _only(of: Result | None) -> Result:
    assert of is not None
    return of


def test_every_method_trains_and_is_measured(ran: Experiment) -> None:
    start = ran.results(START)
    assert [result["kl"] for result in start] == pytest.approx([0, 0], abs=1e-6)
    at_first = {name: [_only(ran.result(Run(name, rate, 0))) for rate in PLAN.rates] for name in METHODS}
    for name, of in at_first.items():
        assert [len(result["training"]["losses"]) for result in of] == [2, 2], name
        assert len(of[0]["answers"]) == len(of[0]["reward"]) == 4 and len(of[0]["margin"]) == 3
        assert 0 < of[0]["kl"] < of[1]["kl"], name
        assert [result["seed"] for result in ran.results(name)] == [0, 1]
    # Same pairs, same seed: only what the method is about may differ.
    losses = {name: tuple(of[0]["training"]["losses"]) for name, of in at_first.items()}
    assert at_first["figa"][0]["training"]["tokens"] == at_first["dpo"][0]["training"]["tokens"]
    assert losses["dpo"][0] == pytest.approx(0.6931, abs=1e-3)


def test_the_gate_shuts_out_the_negative_term_where_the_model_is_confident_in_nothing(published: Path) -> None:
    policy, labels = Policy(tiny_llama(), 1), open_dataset(published).manifest["labels"]
    pairs = read_pairs(published, policy, open_tokenizer(str(labels["tokenizer"]), settings_of(labels)), 512)
    # No cross-entropy is below zero.
    methods = METHODS["figa"], Method(BOTH, partial(figa, gate=-1.0)), controlled.methods()["figa, no gate"][1]
    usual, no_negative, no_gate = (train(policy, pairs, m, PLAN.budget, 1e-5, 0)["losses"] for m in methods)
    assert usual == no_negative != no_gate


def test_what_is_done_is_not_done_again_and_comes_out_the_same(
    ran: Experiment, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ran._folder
    before = {path: path.read_bytes() for path in folder.iterdir()}
    gone = folder / Run("figa", PLAN.rates[0], 0).file
    gone.unlink()
    ran.run(tiny_llama)
    monkeypatch.setattr(experiment, "_Bench", None)
    ran.run(tiny_llama)
    told, was = json.loads(gone.read_text("utf-8")), json.loads(before[gone])
    assert told.pop("cpu_seconds") and was.pop("cpu_seconds") and told == was
    assert all(path.read_bytes() == content for path, content in before.items() if path != gone)
    other = Experiment(folder.parent, published, data.held_out(2, 1), PLAN)
    assert not other.results(START)
    more = Experiment(folder.parent, published, QUERIES, replace(PLAN, seeds=3))
    assert len(more.results(START)) == 2


def test_the_best_rate_is_that_whose_answers_win(ran: Experiment) -> None:
    start = {"reward": [0.0, 0.0, 0.0, 9.0], "cut": [False, False, True, False]}
    better = {"reward": [1.0, 1.0, -1.0, 0.0], "cut": [False, True, False, False]}
    assert experiment.wins(better, start, 3) == pytest.approx(2 / 3)
    assert experiment.wins(start, start, 3) == 0.5
    assert ran.best("figa") in PLAN.rates


def test_the_report_names_every_method(ran: Experiment, tmp_path: Path) -> None:
    page = tmp_path / "replication.md"
    page.write_text(f"# Before\n{report.BEGIN}\nold\n{report.END}\nafter\n", "utf-8")
    part = report.write(ran, {"machine": "any"}, tmp_path)
    tables = {name: 3 + len(PLAN.rates) for name in METHODS} | {"figa": 2 + len(PLAN.rates)}
    assert {name: part.count(f"| {name} | ") for name in METHODS} == tables
    assert page.read_text("utf-8") == f"# Before\n{part}\nafter\n"
    assert (tmp_path / "replication-gains.svg").read_text("utf-8").startswith("<svg")


def test_answers_are_compared_at_equal_length_and_those_cut_are_left_out() -> None:
    def result(reward: list[float], length: list[int], cut: list[bool]) -> Result:
        return {"seed": 0, "reward": reward, "length": length, "cut": cut, "margin": reward}

    # Reward falls by 1 with each doubling; the last answer was cut.
    start = result([4.0, 4.0, 4.0, 4.0], [7, 7, 7, 7], [False] * 4)
    shorter = result([5.0, 6.0, 4.0, -90.0], [3, 1, 7, 90], [False, False, False, True])
    assert report.difference([shorter], [start], "reward").mean == pytest.approx(0)
    assert report.difference([shorter], [start], "margin").mean == pytest.approx(-22.75)
    all_cut = result([1.0] * 4, [7] * 4, [True] * 4)
    assert report.difference([all_cut], [start], "reward").shown() == "–"


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
    small = "--sizes 4 --seeds 1 --pretraining 5 --steps 2 --queries 6".split()
    command = [sys.executable, "-m", "tests.replication.controlled", "--out", str(tmp_path), *small]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = (tmp_path / "controlled.md").read_text("utf-8")
    assert "| figa |" in told and "right answers less figa's" in told
    assert all(told.count(f"| {name} |") == 3 for name in controlled.methods() if name != "figa")


def test_tasks_know_right_answers_slips_and_nearest_corrections() -> None:
    for task in tasks.distinct(200, random.Random(0), set()):
        for answer in task.answers():
            assert task.judge(answer) == "right" and task.correct(answer) == answer
        assert task.judge(task.reference()) == "right"
        if task.slips:
            slipped = task.answers(slip=True)[-1]
            assert task.judge(slipped) == "slip"
            assert task.judge(task.correct(slipped)) == "right"
