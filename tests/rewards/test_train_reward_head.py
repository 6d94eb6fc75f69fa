"""The script that trains the embedded reward's head: reproducible bytes, an optimal fit; and the wheel is without it."""

from __future__ import annotations

import gzip
import json
import tomllib
from pathlib import Path
from typing import Any

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


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode(), mtime=0))
    return path


def _write_preferences(folder: Path) -> Path:
    """The broad sets: 12 queries each, of which the better answer gives a reason."""
    folder.mkdir()
    for name in [*trainer.BROAD.values(), *trainer.MEASURED.values()]:
        asked = [f"Explain the {name} number {n}." for n in range(12)]
        answers = {"chosen": "It counts, because the sum is even.", "rejected": "Numbers are numbers are numbers."}
        _write_lines(folder / f"{name}.jsonl.gz", [{"prompt": _ask(text), **answers} for text in asked])
    return folder


def test_training_reproduces_its_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    human = _write_pairs(tmp_path / "pairs.jsonl", "You are dumb. Shut up, loser.")
    preferences = _write_preferences(tmp_path / "preferences")
    looped = [{"set": "hh", "query": n, "answer": "It is it is it is it is it is it is it is"} for n in range(0, 40, 2)]
    answers = _write_lines(tmp_path / "answers.jsonl.gz", looped)
    heads = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for head in heads:
        files = [
            "--pairs",
            str(human),
            "--preferences",
            str(preferences),
            "--answers",
            str(answers),
            "--out",
            str(head),
        ]
        assert trainer.main(files) == 0
    assert heads[0].read_bytes() == heads[1].read_bytes()
    printed = capsys.readouterr().out
    assert "held-out, hh: 100.0% of 40 pairs (91.2% to 100.0%), 5-fold by query" in printed
    assert "held-out, policy hh, equal length: 100.0% of 20 pairs" in printed
    assert "held-out, broad: 100.0% of 36 pairs" in printed
    reward = EmbeddedReward(heads[0])
    query = _ask("What is thing 7 made of?")
    kind, rude = reward.score([(query, "It is made of wood."), (query, "Shut up, loser.")])
    assert kind > rude
    # Each expert counts most for queries of its own kind.
    assert reward.share_of_first(query) > 0.5 > reward.share_of_first(_ask("Explain the oasst number 3."))


def test_a_fit_is_the_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Newton's steps end where the gradient of loss and penalty is zero."""
    monkeypatch.setattr(trainer, "NEWTON_STEPS", 20)
    some = [Pair(_ask(f"Why {n}?"), f"Because of {n}, I think.", f"No {n % 3} way.") for n in range(12)]
    problem = trainer.Problem([trainer.Labelled("hh", pair) for pair in some])
    head = problem.expert(0)
    width = problem.dense.shape[1]
    hashed = np.zeros((12, features.BUCKETS))
    np.add.at(hashed, (problem.hashed.row, problem.hashed.column), problem.hashed.value)
    wrong = 1 / (1 + np.exp(problem.dense @ head[:width] + hashed @ head[width:]))
    assert np.allclose(trainer.DENSE_PENALTY * head[:width], problem.dense.T @ wrong, atol=1e-4)
    assert np.allclose(trainer.HASHED_PENALTY * head[width:], hashed.T @ wrong, atol=1e-4)
    assert np.abs(head).max() > 0.01


def test_the_best_ranked_reply_is_the_reference() -> None:
    ranked = ["best", "good", "bad"]
    pairs = [Pair(_ask("Why?"), better, worse) for n, better in enumerate(ranked) for worse in ranked[n + 1 :]]
    assert trainer.references([], pairs[::-1])["oasst"] == [Pair(_ask("Why?"), "best", "")]


def test_answers_to_other_queries_are_refused(tmp_path: Path) -> None:
    path = _write_lines(tmp_path / "answers.jsonl.gz", [{"set": "hh", "query": 7, "answer": "Yes."}])
    with pytest.raises(InputError, match=r"train_reward_head\.py sample"):
        trainer.policy_pairs({"hh": [], "oasst": []}, path)


def test_the_wheel_ships_the_data_without_its_training() -> None:
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    shipped = {source: target for source, target in hatch["force-include"].items() if source.startswith("data")}
    assert all(target == f"pipeline/_{source}" for source, target in shipped.items())
    left_out = {"train_reward_head.py", "reward-answers.jsonl.gz"}
    files = {path.name for path in (ROOT / "data").iterdir() if path.is_file()}
    assert set(shipped) == {f"data/{name}" for name in files - left_out}
