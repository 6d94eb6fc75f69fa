"""Train the embedded reward's head, and say how good it is on pairs that it has not seen.

    figa rewards.train_head --pairs harmless.jsonl.gz [--answers FILE] [--out reward-head.npz]
    figa rewards.train_head sample --pairs harmless.jsonl.gz --rows 0:243,700:950 --out answers.jsonl.gz

`--pairs` holds hh-rlhf transcripts, {"chosen", "rejected"} a line; `--answers` what `sample` made: the embedded policy's
answers by number of pair. The head is a Bradley–Terry model, R(chosen) > R(rejected), linear in the features' differences,
fitted on three kinds of pairs together:

    people    which of two replies people preferred                    weight 1
    policy    reference against the policy's answer, equal length      weight POLICY_WEIGHT
    spoiled   a text against itself, damaged: looped, parroting …      weight SPOILED_WEIGHT, dense features alone

No feature is a text's length, though many go with it. It is ridge logistic regression, solved in the space of the pairs (a
few thousand) in place of the features' (33 thousand), by Newton's method; how strong the ridge is, cross-validation decides,
within the training folds alone where held-out figures are made. The same input gives the same bytes: a fixed number of steps,
seeded damage, float64 throughout, and weights rounded far above its noise.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.cli.interrupts import exit_code_of
from pipeline.cli.streams import take_any_text
from pipeline.errors import InputError
from pipeline.resources import folder
from pipeline.rewards import features
from pipeline.rewards.embedded import FORMAT, EmbeddedReward, save_head
from pipeline.rewards.pairs import Pair, cut_even, policy_pairs, read_pairs, sample, spoil

Floats = npt.NDArray[np.float64]

WIDTH, FOLDS, STEPS = len(features.NAMES), 5, 6
# Of a dense feature in units of its spread among people's pairs, and of a hashed one.
DENSE_PENALTY, HASHED_PENALTY = 150.0, 3.0
STRENGTHS = (0.6, 1.0, 1.7)  # of both penalties; which, is cross-validated
POLICY_WEIGHT, SPOILED_WEIGHT = 0.5, 0.03
# A feature that hardly varies is not blown up beyond this.
LEAST_SPREAD = 0.05
# Set by hand, in units of the reward: raters hardly saw forms to be filled in, but training data must not have them.
_PRICED = {"placeholder": -1.0}
_COLUMNS = 4096  # hashed features in memory at a time


class Design(NamedTuple):
    """Feature differences, chosen minus rejected, of n pairs: a dense block, and a sparse one as coordinates."""

    dense: Floats  # (n, D), D = len(features.NAMES)
    rows: npt.NDArray[np.int64]  # (nnz,)
    columns: npt.NDArray[np.int64]  # (nnz,), in [0, BUCKETS)
    values: Floats  # (nnz,)
    weights: Floats  # (n,), of each pair in the loss
    folds: npt.NDArray[np.int64]  # (n,), the cross-validation fold; one query's pairs, of all kinds, share it

    def hashed(self) -> Floats:
        """Inner products of the pairs' hashed features, shape (n, n)."""
        gram = np.zeros((len(self.dense), len(self.dense)))
        for start in range(0, features.BUCKETS, _COLUMNS):
            here = (self.columns >= start) & (self.columns < start + _COLUMNS)
            block = np.zeros((len(self.dense), _COLUMNS))
            block[self.rows[here], self.columns[here] - start] += self.values[here]
            gram += block @ block.T
        return gram


def design(pairs: Sequence[Pair], weight: float) -> Design:
    """What the features say of each pair."""
    dense = np.zeros((len(pairs), WIDTH))
    cells: dict[tuple[int, int], float] = {}
    for row, pair in enumerate(pairs):
        for sign, text in ((1.0, pair.chosen), (-1.0, pair.rejected)):
            dense[row] += sign * features.dense(pair.messages, text)
            buckets, each = features.hashed(text)
            for bucket in buckets.tolist():
                cells[row, bucket] = cells.get((row, bucket), 0.0) + sign * each
    places = np.array(list(cells), dtype=np.int64).reshape(-1, 2)
    folds = [zlib.crc32(p.messages[0]["content"].encode("utf-8", "replace")) % FOLDS for p in pairs]
    values, weights = np.array(list(cells.values()), dtype=np.float64), np.full(len(pairs), weight)
    return Design(dense, places[:, 0], places[:, 1], values, weights, np.array(folds, dtype=np.int64))


class Problem(NamedTuple):
    """All pairs, people's first, and what makes fitting them on any subset quick."""

    data: Design
    scaled: Floats  # (n, D), the dense block in units of its spread
    spread: Floats  # (D,)
    gram: Floats  # (n, n), inner products of all features, each block over its penalty
    people: int  # how many of the pairs are people's

    def fit(self, train: npt.NDArray[np.int64], strength: float) -> Floats:
        """One coefficient a training pair, of the pairs `train` (m,): the minimiser of the weighted logistic loss."""
        gram, weights = self.gram[np.ix_(train, train)] / strength, self.data.weights[train]
        margin = np.zeros(len(train))
        for _ in range(STEPS):
            chance = 1 / (1 + np.exp(-np.clip(margin, -30, 30)))
            curve = weights * np.maximum(chance * (1 - chance), 1e-4)
            target = margin + weights * (1 - chance) / curve
            coefficients = np.linalg.solve(gram + np.diag(1 / curve), target)
            margin = gram @ coefficients
        return np.asarray(coefficients, dtype=np.float64)

    def margins(self, train: npt.NDArray[np.int64], test: npt.NDArray[np.int64], strength: float) -> Floats:
        """R(chosen) − R(rejected) of the pairs `test`, by a head fitted on `train`."""
        return np.asarray(self.gram[np.ix_(test, train)] @ self.fit(train, strength) / strength)

    def strength(self, train: npt.NDArray[np.int64]) -> float:
        """The strength by which people's pairs among `train` are the likeliest, each fold's by the others."""
        folds = self.data.folds[train]

        def loss(strength: float) -> float:
            total = 0.0
            for fold in np.unique(folds):
                test = train[(folds == fold) & (train < self.people)]
                total += np.logaddexp(0, -self.margins(train[folds != fold], test, strength)).sum()
            return total

        return min(STRENGTHS, key=loss)

    def head(self, strength: float) -> Floats:
        """The weights of all features, shape (D + BUCKETS,), fitted on all pairs."""
        data, pairs = self.data, np.arange(len(self.data.dense))
        coefficients = self.fit(pairs, strength) / strength
        dense = self.scaled.T @ coefficients / DENSE_PENALTY / self.spread
        hashed = np.bincount(data.columns, data.values * coefficients[data.rows], minlength=features.BUCKETS)
        return np.concatenate([dense, hashed / HASHED_PENALTY])


def problem(people: Design, policy: Design, spoiled: Design) -> Problem:
    """The three kinds as one; of damaged texts the words mean nothing, so only their dense features count."""
    none = np.zeros(0, dtype=np.int64)
    parts = [people, policy, spoiled._replace(rows=none, columns=none, values=np.zeros(0))]
    starts = np.cumsum([0, *(len(part.dense) for part in parts)])
    moved = [part._replace(rows=part.rows + start) for part, start in zip(parts, starts, strict=False)]
    data = Design(*(np.concatenate(block) for block in zip(*moved, strict=True)))
    spread = np.maximum(people.dense.std(axis=0), LEAST_SPREAD)
    scaled = data.dense / spread
    gram = scaled @ scaled.T / DENSE_PENALTY + data.hashed() / HASHED_PENALTY
    return Problem(data, scaled, spread, gram, len(people.dense))


# ---- commands -----------------------------------------------------------------------------------------------------------


def cross_validate(whole: Problem) -> Floats:
    """Margins of all pairs, (n,): each from a head that saw no pair of the same query, nor did the choice of its strength."""
    margins, folds = np.zeros(len(whole.data.dense)), whole.data.folds
    for fold in np.unique(folds):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        margins[test] = whole.margins(train, test, whole.strength(train))
    return margins


def train(pairs_path: Path, answers_path: Path, out: Path) -> None:
    """Fit, print held-out figures, write the head."""
    pairs = read_pairs(pairs_path)
    if len(pairs) < 10:
        raise InputError(f"{pairs_path}: expected at least 10 usable pairs, got {len(pairs)}")
    sampled = policy_pairs(pairs, answers_path)
    even = [cut for pair in sampled if (cut := cut_even(pair))]
    damaged = spoil([*pairs[::9], *(p._replace(chosen=p.rejected) for p in sampled[::5])])
    kinds = {
        "preferences": design(pairs, 1.0),
        "policy, equal length": design(even, POLICY_WEIGHT),
        "spoiled": design(damaged, SPOILED_WEIGHT),
    }
    whole = problem(*kinds.values())
    margins = iter(np.split(cross_validate(whole), np.cumsum([len(kind.dense) for kind in kinds.values()])))
    for name in kinds:
        _tell(name, held_out := next(margins))
        if name == "preferences":
            words = np.array([[len(text.split()) for text in pair[1:]] for pair in pairs])
            _tell("preferences, lengths alike", held_out[4 * words.min(axis=1) >= 3 * words.max(axis=1)])
    _write(whole.head(whole.strength(np.arange(len(whole.data.dense)))), pairs, sampled, out)
    print(f"{out}: sha256 {EmbeddedReward(out).digest}")


def _tell(name: str, margins: Floats) -> None:
    if len(margins):
        right = np.mean((margins > 0) + 0.5 * (margins == 0))
        error = 100 * (right * (1 - right) / len(margins)) ** 0.5
        print(f"held-out accuracy, {name}: {100 * right:.1f} +- {error:.1f} % of {len(margins)} pairs ({FOLDS}-fold)")


def _write(head: Floats, pairs: Sequence[Pair], sampled: Sequence[Pair], out: Path) -> None:
    """Save the head, shifted and scaled so that honest answers score 0 +- 1 (mean and standard deviation)."""
    bare = {"format": np.array(FORMAT), "names": np.array(features.NAMES), "bias": np.array(0.0)}
    save_head(out, {**bare, "dense": head[:WIDTH], "hashed": head[WIDTH:]})
    items = [(p.messages, text) for p in [*pairs, *sampled] for text in (p.chosen, p.rejected)]
    scores = EmbeddedReward(out).score(items).astype(np.float64)
    scale = 1 / scores.std()
    bare["bias"] = np.array(np.round(-scores.mean() * scale, 3))
    # Short numbers halve the file, and hide the last bits, in which linear-algebra libraries differ.
    dense, hashed = np.round(head[:WIDTH] * scale, 4), (head[WIDTH:] * scale).astype(np.float16)
    for name, price in _PRICED.items():
        dense[features.NAMES.index(name)] = price
    save_head(out, {**bare, "dense": dense, "hashed": hashed})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    take_any_text()
    parser = argparse.ArgumentParser(prog="figa rewards.train_head", description="Train the reward head.")
    parser.add_argument("command", nargs="?", choices=("train", "sample"), default="train")
    parser.add_argument("--pairs", type=Path, required=True, help="hh-rlhf transcripts, .jsonl or .jsonl.gz")
    parser.add_argument("--answers", type=Path, help="what `sample` wrote; default: the answers that ship")
    parser.add_argument("--out", type=Path, default=Path("data/reward-head.npz"))
    parser.add_argument("--rows", default="0:", help="sample: which pairs, e.g. 0:243,700:950")
    args = parser.parse_args(argv)
    return exit_code_of(lambda: _main(args), "nothing was written")


def _main(args: argparse.Namespace) -> int:
    if args.command == "sample":
        sample(read_pairs(args.pairs), args.out, args.rows)
    else:
        train(args.pairs, args.answers or folder("data") / "reward-answers.jsonl.gz", args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
