"""The script that trains the embedded reward's head: reproducible bytes, an optimal fit; and the wheel is without it."""

from __future__ import annotations

import gzip
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import train_reward_head as trainer

from pipeline.errors import InputError
from pipeline.rewards import features
from pipeline.rewards.check import Pair
from pipeline.rewards.embedded import EmbeddedReward
from tests.conftest import ROOT


def _ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _write_pairs(path: Path, worse: str) -> Path:
    rows = []
    for n in range(40):
        ask = f"\n\nHuman: What is thing {n} made of?\n\nAssistant: "
        rows.append({"chosen": f"{ask}Thing {n} is made of wood. It is quite old.", "rejected": ask + worse})
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def _write_answers(path: Path) -> Path:
    lines = [
        json.dumps({"pair": n, "answer": "It is it is it is it is it is it is it is it is it is"})
        for n in range(0, 40, 2)
    ]
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    return path


def test_training_reproduces_its_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    human = _write_pairs(tmp_path / "pairs.jsonl", "You are dumb. Shut up, loser.")
    answers = _write_answers(tmp_path / "answers.jsonl.gz")
    heads = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for head in heads:
        assert trainer.main(["--pairs", str(human), "--answers", str(answers), "--out", str(head)]) == 0
    assert heads[0].read_bytes() == heads[1].read_bytes()
    printed = capsys.readouterr().out
    assert "held-out accuracy, preferences: 100.0 +- 0.0 % of 40 pairs" in printed
    assert "held-out accuracy, policy, equal length: 100.0 +- 0.0 % of 20 pairs" in printed
    query = _ask("What is thing 7 made of?")
    kind, rude = EmbeddedReward(heads[0]).score([(query, "It is made of wood."), (query, "Shut up, loser.")])
    assert kind > rude


def test_a_problem_is_fitted_to_its_optimum() -> None:
    """Newton's steps in the space of pairs end where the gradient in the space of features is zero."""
    some = [Pair(_ask(f"Why {n}?"), f"Because of {n}, I think.", f"No {n % 3} way.") for n in range(12)]
    problem = trainer.Problem(some, [], [])
    head = problem.head(1.0)
    scaled = head[: trainer.WIDTH] * problem.spread
    hashed = np.zeros((12, features.BUCKETS))
    hashed[problem.rows, problem.columns] = problem.values
    wrong = 1 / (1 + np.exp(problem.scaled @ scaled + hashed @ head[trainer.WIDTH :]))
    assert np.allclose(trainer.DENSE_PENALTY * scaled, problem.scaled.T @ wrong, atol=1e-6)
    assert np.allclose(trainer.HASHED_PENALTY * head[trainer.WIDTH :], hashed.T @ wrong, atol=1e-6)


def test_answers_to_other_pairs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"pair": 7, "answer": "Yes."}\n'))
    with pytest.raises(InputError, match=r"train_reward_head\.py sample"):
        trainer.policy_pairs([], path)


def test_the_wheel_ships_the_data_without_its_training() -> None:
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    shipped = {source: target for source, target in hatch["force-include"].items() if source.startswith("data")}
    assert all(target == f"pipeline/_{source}" for source, target in shipped.items())
    left_out = {"train_reward_head.py", "reward-answers.jsonl.gz"}
    files = {path.name for path in (ROOT / "data").iterdir() if path.is_file()}
    assert set(shipped) == {f"data/{name}" for name in files - left_out}
