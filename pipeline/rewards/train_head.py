"""Train the embedded reward's head, and say how good it is on pairs that it has not seen.

    python -m pipeline.rewards.train_head --pairs harmless.jsonl.gz [--policy-pairs policy.jsonl] [--out reward-head.npz]
    python -m pipeline.rewards.train_head sample --pairs harmless.jsonl.gz --base-url http://HOST/v1 --out policy.jsonl

Both files hold hh-rlhf transcripts, {"chosen", "rejected"} a line. The head is a Bradley–Terry model,
R(chosen) > R(rejected), on the features' differences, fitted on three kinds of pairs:

    pairs     people's preferences                                      everything but faults
    policy    reference against a sampled answer, cut to equal length   dense features but style (_STYLE) and faults
    spoiled   a text against itself, damaged: looped, parroting …       what each fault costs, at the end

Letters and words are learned from `pairs` alone, where both replies come from one family of writers; learned from
`policy` they would tell who wrote a text. The same input gives the same bytes: fixed steps, seeded damage.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.rewards import features
from pipeline.rewards.embedded import FORMAT, EmbeddedReward, save_head
from pipeline.rewards.pairs import Pair, cut_even, read_pairs, sample, spoil

Floats = npt.NDArray[np.float64]

WIDTH, FOLDS, STEPS = len(features.NAMES), 5, 300
DENSE_PENALTY, HASHED_PENALTY, FAULT_PENALTY = 200.0, 3.0, 2.0
POLICY_WEIGHT, SPOILED_WEIGHT = 1.0, 0.02
# Marks of one writer or another: policy pairs must not teach them.
_STYLE = frozenset(
    "word_length commas quotes list markdown odd_characters sentence_mean exclaims shouting risk_list lower_start".split()
)
_BAD = frozenset("repeat_sentence stutter toxic placeholder meta".split())
# Prices set by hand: raters of hh-rlhf do not punish these, but training data must not have them.
_PRICED = {"fault_cut_off": -0.05, "fault_off_topic": -0.25}


class Design(NamedTuple):
    """Feature differences, chosen minus rejected, of n pairs: a dense block, and a sparse one as coordinates."""

    dense: Floats  # (n, D), D = len(features.NAMES)
    rows: npt.NDArray[np.int64]  # (nnz,)
    columns: npt.NDArray[np.int64]  # (nnz,), in [0, BUCKETS)
    values: Floats  # (nnz,)
    weights: Floats  # (n,), of each pair in the loss
    folds: npt.NDArray[np.int64]  # (n,), the cross-validation fold; one query's pairs, of all kinds, share it

    def take(self, keep: npt.NDArray[np.bool_]) -> Design:
        """The pairs where `keep` (n,) is true."""
        kept = keep[self.rows]
        rows = (np.cumsum(keep) - 1)[self.rows[kept]]
        return Design(
            self.dense[keep], rows, self.columns[kept], self.values[kept], self.weights[keep], self.folds[keep]
        )

    def times(self, head: Floats) -> Floats:
        """R(chosen) - R(rejected), shape (n,), for a head of D + BUCKETS weights."""
        words = np.bincount(self.rows, self.values * head[WIDTH + self.columns], minlength=len(self.dense))
        return np.asarray(self.dense @ head[:WIDTH] + words)

    def back(self, gradient: Floats) -> Floats:
        """The transpose of `times`: (n,) to (D + BUCKETS,)."""
        words = np.bincount(self.columns, self.values * gradient[self.rows], minlength=features.BUCKETS)
        return np.concatenate([self.dense.T @ gradient, words])

    def only(self, names: Callable[[str], bool]) -> Design:
        """The same pairs seen through the named dense features alone."""
        shown = np.array([names(name) for name in features.NAMES])
        none = np.zeros(0, dtype=np.int64)
        return self._replace(dense=self.dense * shown, rows=none, columns=none, values=np.zeros(0))


def design(pairs: Sequence[Pair], weight: float) -> Design:
    """What the features say of each pair."""
    dense = np.zeros((len(pairs), WIDTH))
    rows: list[npt.NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
    columns, values = rows.copy(), [np.zeros(0)]
    for row, pair in enumerate(pairs):
        for sign, text in ((1.0, pair.chosen), (-1.0, pair.rejected)):
            dense[row] += sign * features.dense(pair.messages, text)
            buckets, each = features.hashed(text)
            rows.append(np.full(len(buckets), row))
            columns.append(buckets)
            values.append(np.full(len(buckets), sign * each))
    folds = [zlib.crc32(p.messages[0]["content"].encode("utf-8", "replace")) % FOLDS for p in pairs]
    cells = np.concatenate(rows), np.concatenate(columns), np.concatenate(values)
    return Design(dense, *cells, np.full(len(pairs), weight), np.array(folds, dtype=np.int64))


def join(*parts: Design) -> Design:
    """Several designs as one, in order."""
    starts = np.cumsum([0, *(len(part.dense) for part in parts)])
    moved = [part._replace(rows=part.rows + start) for part, start in zip(parts, starts, strict=False)]
    return Design(*(np.concatenate(block) for block in zip(*moved, strict=True)))


def descend(data: Design, penalty: Floats, upper: Floats, offset: Floats | float = 0.0) -> Floats:
    """The head that minimises the weighted logistic loss of `offset + data.times(head)` plus penalty * head² / 2.

    Accelerated projected gradient under head <= upper; a fixed number of steps, so that equal input gives equal output.
    """
    top = np.random.default_rng(0).normal(size=len(penalty))
    for _ in range(20):  # power iteration: the curvature sets the step
        top = data.back(data.weights * data.times(top / np.linalg.norm(top)))
    step = 1 / (0.27 * np.linalg.norm(top) + penalty.max())
    head, ahead, pace = np.zeros(len(penalty)), np.zeros(len(penalty)), 1.0
    for _ in range(STEPS):
        margin = np.clip(offset + data.times(ahead), -50, 50)
        slope = penalty * ahead - data.back(data.weights / (1 + np.exp(margin)))
        new = np.minimum(ahead - step * slope, upper)
        if (slope * (new - head)).sum() > 0:  # overshot: start the acceleration anew
            pace = 1.0
        faster = (1 + (1 + 4 * pace * pace) ** 0.5) / 2
        head, ahead, pace = new, new + (pace - 1) / faster * (new - head), faster
    return head


def fit(people: Design, policy: Design, spoiled: Design) -> Floats:
    """The head, float64 (D + BUCKETS,): tone from preferences first, then what each fault must cost to outweigh it."""
    spread = people.dense.std(axis=0) + 0.02
    quality = policy.only(lambda name: name not in _STYLE)
    penalty = np.concatenate([np.full(WIDTH, DENSE_PENALTY), np.full(features.BUCKETS, HASHED_PENALTY)])
    head = descend(join(_scaled(people, spread), _scaled(quality, spread)), penalty, _signs())
    head[:WIDTH] /= spread
    for name, price in _PRICED.items():
        head[features.NAMES.index(name)] = price
    both = join(people, spoiled)
    # Faults only ever cost. Everything else stands, as the offset that they have to outweigh.
    faults = both.only(lambda name: _is_fault(name) and name not in _PRICED)
    return head + descend(faults, np.full(len(penalty), FAULT_PENALTY), _signs(), both.times(head))


def _signs() -> Floats:
    """Upper bounds of the head: what is plainly bad may not pay, whatever chance says in a small sample."""
    bad = [name in _BAD or _is_fault(name) for name in features.NAMES]
    return np.concatenate([np.where(bad, 0.0, np.inf), np.full(features.BUCKETS, np.inf)])


def _is_fault(name: str) -> bool:
    return name.startswith("fault_")


def _scaled(data: Design, spread: Floats) -> Design:
    """Without the faults, each dense column in units of its spread."""
    keep = [not _is_fault(name) for name in features.NAMES]
    return data._replace(dense=data.dense * keep / spread)


# ---- commands -----------------------------------------------------------------------------------------------------------


def cross_validate(people: Design, policy: Design, spoiled: Design) -> list[tuple[str, Floats]]:
    """(name, margins of held-out pairs) a kind: each margin comes from a head that saw no pair of the same query."""
    kinds = {"preferences": people, "policy, equal length": policy, "spoiled": spoiled}
    margins = {name: np.zeros(len(data.dense)) for name, data in kinds.items()}
    for fold in range(FOLDS):
        head = fit(*(data.take(data.folds != fold) for data in kinds.values()))
        for name, data in kinds.items():
            held_out = data.folds == fold
            margins[name][held_out] = data.take(held_out).times(head)
    return list(margins.items())


def train(pairs_path: Path, policy_path: Path | None, out: Path) -> None:
    """Fit, print held-out figures, write the head."""
    pairs = read_pairs(pairs_path)
    sampled = read_pairs(policy_path) if policy_path else []
    if len(pairs) < 10:
        raise InputError(f"{pairs_path}: expected at least 10 usable pairs, got {len(pairs)}")
    people = design(pairs, 1.0)
    policy = design([even for pair in sampled if (even := cut_even(pair))], POLICY_WEIGHT)
    spoiled = design(spoil([*pairs, *(p._replace(chosen=p.rejected) for p in sampled)]), SPOILED_WEIGHT)
    for name, margins in cross_validate(people, policy, spoiled):
        if len(margins):
            right = np.mean((margins > 0) + 0.5 * (margins == 0))
            error = 100 * (right * (1 - right) / len(margins)) ** 0.5
            print(
                f"held-out accuracy, {name}: {100 * right:.1f} +- {error:.1f} % of {len(margins)} pairs ({FOLDS}-fold)"
            )
    _write(fit(people, policy, spoiled), pairs, sampled, out)
    print(f"{out}: sha256 {EmbeddedReward(out).digest}")


def _write(head: Floats, pairs: Sequence[Pair], sampled: Sequence[Pair], out: Path) -> None:
    """Save the head, shifted and scaled so that honest answers score 0 +- 1 (mean and standard deviation)."""
    bare = {"format": np.array(FORMAT), "names": np.array(features.NAMES), "bias": np.array(0.0)}
    save_head(out, {**bare, "dense": head[:WIDTH], "hashed": head[WIDTH:]})
    items = [(p.messages, text) for p in [*pairs, *sampled] for text in (p.chosen, p.rejected)]
    scores = EmbeddedReward(out).score(items).astype(np.float64)
    scale = 1 / scores.std()
    bare["bias"] = np.array(np.float32(-scores.mean() * scale))
    # float32 halves the file and hides the last bits, in which linear-algebra libraries may differ.
    dense, hashed = (head[:WIDTH] * scale).astype(np.float32), (head[WIDTH:] * scale).astype(np.float32)
    save_head(out, {**bare, "dense": dense, "hashed": hashed})


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.rewards.train_head", description="Train the reward head.")
    parser.add_argument("command", nargs="?", choices=("train", "sample"), default="train")
    parser.add_argument("--pairs", type=Path, required=True, help="hh-rlhf transcripts, .jsonl or .jsonl.gz")
    parser.add_argument("--policy-pairs", type=Path, help="what `sample` wrote")
    parser.add_argument("--out", type=Path, default=Path("data/reward-head.npz"))
    parser.add_argument("--base-url", help="sample: an OpenAI-compatible server")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="sample: the model's name there")
    parser.add_argument("--every", type=int, default=3, help="sample: every n-th query")
    args = parser.parse_args(argv)
    if args.command == "train":
        train(args.pairs, args.policy_pairs, args.out)
    elif args.base_url:
        sample(args.pairs, args.out, args.base_url, args.model, args.every)
    else:
        parser.error("sample needs --base-url")


if __name__ == "__main__":
    main()
