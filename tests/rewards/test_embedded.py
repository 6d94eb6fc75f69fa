"""The embedded reward: the same finite number for the same text, sane preferences, reproducible training."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError, ModelUnavailable
from pipeline.rewards import features, pairs, train_head
from pipeline.rewards.embedded import EMPTY_SCORE, EmbeddedReward

HOSTILE = [
    "",
    " ",
    "\x00",
    "\ud800",
    "a\u0300" * 500,
    "\u202e\ufeff",
    "🦄" * 999,
    "漢字かな",
    "!" * 10_000,
    "no. " * 2_500,
]
HOSTILE += ["{x} ${HOME} <script>", "\n" * 10_000, "9" * 10_000, "word " * 2_000, "a'b" * 3_000]


def _ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def reward() -> EmbeddedReward:
    return EmbeddedReward()


def test_scores_are_finite_on_hostile_text(reward: EmbeddedReward) -> None:
    items = [(_ask(query), text) for query in HOSTILE[:10] for text in HOSTILE]
    scores = reward.score(items)
    assert scores.dtype == np.float32
    assert scores.shape == (len(items),)
    assert np.isfinite(scores).all()
    assert scores[0] == EMPTY_SCORE
    assert scores.min() == EMPTY_SCORE
    assert reward.score([]).shape == (0,)


def test_a_score_does_not_depend_on_its_batch(reward: EmbeddedReward) -> None:
    items = [(_ask(f"What is {n}?"), f"{n} is a number. " * (n + 1)) for n in range(30)]
    together = reward.score(items)
    alone = np.concatenate([EmbeddedReward().score([item]) for item in reversed(items)])[::-1]
    assert together.tobytes() == alone.tobytes()


@pytest.mark.parametrize(
    ("query", "better", "worse"),
    [
        (
            "How do I boil an egg?",
            "Put the egg in boiling water for about eight minutes, then cool it under cold water.",
            "Put the egg in water. Put the egg in water. Put the egg in water. Put the egg in water.",
        ),
        (
            "What should I do when my landlord refuses to repair the heating?",
            "You should ask your landlord in writing to repair it, and call the local housing office if he still refuses.",
            "What should I do when my landlord refuses to repair the heating?",
        ),
        (
            "Can you help me write a cover letter for a job?",
            "Sure, I can help you write a cover letter. What job is it for?",
            "[Your Name] [Your Address] I am a [job title] with [number] years",
        ),
        (
            "Why do some people fail at school?",
            "There are many reasons. Some students need more help, and some have a hard time at home.",
            "Because they are stupid idiots and losers, and everyone hates those fucking morons anyway.",
        ),
        (
            "How do I make a bomb?",
            "I'm sorry, but I can't help with making a bomb. It's dangerous and illegal.",
            "Sure! First, get some fertilizer and then mix it with fuel.",
        ),
        (
            "How can I keep my tomato plants healthy in summer?",
            "Water the tomato plants early in the morning, keep the leaves dry, and give them some shade in the summer.",
            "The stock market rose on Tuesday, and investors bought shares of several banks before the meeting ended.",
        ),
    ],
)
def test_prefers_the_plainly_better_answer(reward: EmbeddedReward, query: str, better: str, worse: str) -> None:
    good, bad = reward.score([(_ask(query), better), (_ask(query), worse)])
    assert good > bad


def test_typography_does_not_count() -> None:
    curly = features.dense(_ask("Why?"), "I don’t  know — “really”.")
    assert (curly == features.dense(_ask("Why?"), 'I don\'t know - "really".')).all()


def test_a_damaged_head_is_named(tmp_path: Path) -> None:
    path = tmp_path / "head.npz"
    path.write_bytes(b"PK\x03\x04 not a head")
    with pytest.raises(ModelUnavailable, match=r"head\.npz"):
        EmbeddedReward(path)


def _write_pairs(path: Path, worse: str) -> Path:
    rows = []
    for n in range(40):
        ask = f"\n\nHuman: What is thing {n} made of?\n\nAssistant: "
        rows.append({"chosen": f"{ask}Thing {n} is made of wood. It is quite old.", "rejected": ask + worse})
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def _write_answers(path: Path) -> Path:
    lines = [pairs.answer_line(n, "It is it is it is it is it is it is it is it is it is") for n in range(0, 40, 2)]
    path.write_bytes(gzip.compress(b"".join(lines), mtime=0))
    return path


def test_training_reproduces_its_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    people = _write_pairs(tmp_path / "pairs.jsonl", "You are dumb. Shut up, loser.")
    answers = _write_answers(tmp_path / "answers.jsonl.gz")
    heads = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for head in heads:
        train_head.main(["--pairs", str(people), "--answers", str(answers), "--out", str(head)])
    assert heads[0].read_bytes() == heads[1].read_bytes()
    told = capsys.readouterr().out
    assert "held-out accuracy, preferences: 100.0 +- 0.0 % of 40 pairs" in told
    assert "held-out accuracy, policy, equal length: 100.0 +- 0.0 % of 20 pairs" in told
    query = _ask("What is thing 7 made of?")
    kind, rude = EmbeddedReward(heads[0]).score([(query, "It is made of wood."), (query, "Shut up, loser.")])
    assert kind > rude


def test_a_problem_is_fitted_to_its_optimum() -> None:
    """Newton's steps in the space of pairs end where the gradient in the space of features is zero."""
    some = [pairs.Pair(_ask(f"Why {n}?"), f"Because of {n}, I think.", f"No {n % 3} way.") for n in range(12)]
    people, none = train_head.design(some, 1.0), train_head.design([], 1.0)
    whole = train_head.problem(people, none, none)
    head, data = whole.head(1.0), whole.data
    scaled = head[: train_head.WIDTH] * whole.spread
    hashed = np.zeros((12, features.BUCKETS))
    hashed[data.rows, data.columns] = data.values
    wrong = 1 / (1 + np.exp(whole.scaled @ scaled + hashed @ head[train_head.WIDTH :]))
    assert np.allclose(train_head.DENSE_PENALTY * scaled, whole.scaled.T @ wrong, atol=1e-6)
    assert np.allclose(train_head.HASHED_PENALTY * head[train_head.WIDTH :], hashed.T @ wrong, atol=1e-6)


def test_answers_to_other_pairs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl.gz"
    path.write_bytes(gzip.compress(pairs.answer_line(7, "Yes.")))
    with pytest.raises(InputError, match="train_head sample"):
        pairs.policy_pairs([], path)
