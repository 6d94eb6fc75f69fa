"""Train the head of the embedded reward and print its accuracy on held-out pairs.

    python data/train_reward_head.py --pairs harmless.jsonl.gz [--answers FILE] [--out reward-head.npz]
    python data/train_reward_head.py sample --pairs harmless.jsonl.gz --rows 0:243,700:950 --out answers.jsonl.gz

`--pairs` holds hh-rlhf transcripts; `--answers` holds answers of the embedded policy by pair number, as `sample` writes them.
The head is a Bradley–Terry model, R(chosen) > R(rejected), linear in feature differences, fitted on three kinds of pairs:

    human      which of two replies people preferred                   weight 1
    policy     reference against the policy's answer, equal length     weight POLICY_WEIGHT
    damaged    a text against a damaged copy of itself                 weight DAMAGED_WEIGHT, dense features only

It is ridge logistic regression by Newton's method, in the space of pairs (a few thousand) instead of features (33 thousand).
Cross-validation chooses the ridge's strength, within the training folds for held-out figures. Same input, same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import random
import re
import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openai

from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import PolicySettings, SourceSettings
from pipeline.errors import CurationError, InputError
from pipeline.models.local import catalog
from pipeline.models.local.download import fetch
from pipeline.models.local.server import serve
from pipeline.rewards import check, features
from pipeline.rewards.check import Pair
from pipeline.rewards.embedded import FORMAT, EmbeddedReward

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DATA = Path(__file__).parent
WIDTH, FOLDS, STEPS = len(features.NAMES), 5, 6
# Of a dense feature in units of its standard deviation among human pairs, and of a hashed feature.
DENSE_PENALTY, HASHED_PENALTY = 150.0, 3.0
STRENGTHS = (0.6, 1.0, 1.7)  # factors of both penalties; cross-validation chooses one
POLICY_WEIGHT, DAMAGED_WEIGHT = 0.5, 0.03
# A feature that hardly varies is not scaled up beyond this.
LEAST_SPREAD = 0.05
# Set by hand, in units of the reward: raters hardly saw forms to fill in, but training data must not have them.
_PLACEHOLDER_WEIGHT = -1.0
_COLUMNS = 4096  # hashed features in memory at a time
# For sampling: long conversations take long to read, and short answers suffice, since pairs are cut to equal length.
_MOST_CHARS, _ANSWER_TOKENS = 1000, 96


def read_pairs(path: Path) -> list[Pair]:
    """The usable pairs of a transcript file, in its order. Raises InputError."""
    settings = SourceSettings(name="hh-rlhf", input=str(path))
    return check.read_pairs(settings, None, lambda warning: print(f"note: {warning}", file=sys.stderr))[0]


def cut_to_equal_length(pair: Pair) -> Pair | None:
    """Both texts cut to one word less than the shorter one, so that neither length nor a clean ending tells them apart."""
    ends = [[m.end() for m in re.finditer(r"\S+", text)] for text in (pair.chosen, pair.rejected)]
    words = min(map(len, ends)) - 1
    if words < 4:
        return None
    return Pair(pair.messages, pair.chosen[: ends[0][words - 1]], pair.rejected[: ends[1][words - 1]])


def _loop(rng: random.Random, sentences: list[str], pair: Pair) -> str:
    """About the same length, repeating one sentence to the end."""
    at = rng.randrange(len(sentences) - 1) if len(sentences) > 1 else 0
    stuck = sentences[: at + 1] + sentences[at : at + 1] * 50
    return " ".join(" ".join(stuck).split()[: max(len(pair.chosen.split()), 2 * len(sentences[0].split()))])


def damage(pairs: Sequence[Pair]) -> list[Pair]:
    """Each chosen text against worse ones: an answer of like length to another query, a loop, and the question itself."""
    damaged = []
    for number, pair in enumerate(pairs):
        rng = random.Random(f"spoil {number}")  # noqa: S311  a seed, not a secret
        sentences = re.split(r"(?<=[.!?])\s+", pair.chosen)
        others = [p for p in rng.sample(pairs, min(40, len(pairs))) if p.messages != pair.messages]
        stray = min(others, key=lambda p: abs(len(p.chosen) - len(pair.chosen)), default=pair)
        worse, question = [stray.chosen, _loop(rng, sentences, pair)], pair.messages[-1]["content"]
        # In place of the whole answer or of its beginning.
        worse.append(question if rng.random() < 0.5 else " ".join([question, *sentences[1:]]))
        damaged += [Pair(pair.messages, pair.chosen, text) for text in worse if text.strip() and text != pair.chosen]
    return damaged


def policy_pairs(pairs: Sequence[Pair], path: Path) -> list[Pair]:
    """The reference against the policy's answer, for each pair with an answer in `path`. Raises InputError."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            answers = [json.loads(line) for line in lines]
        return [pairs[each["pair"]]._replace(rejected=str(each["answer"])) for each in answers if each["answer"]]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(
            f"{path}: expected answers to these pairs, as `data/train_reward_head.py sample` writes them: {error!r}"
        ) from error


def sample(pairs: Sequence[Pair], out: Path, rows: str) -> None:
    """Write the embedded policy's answers to the pairs numbered `rows` ("0:9,20:") to `out`.

    One call at a time, one thread, no cache and a seed per pair: the same answers each time on one machine.
    """
    settings = PolicySettings()
    model = catalog.get(ModelSpec.parse(settings.model).name)
    server = serve(fetch(model))
    client = openai.OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0, timeout=600)
    numbers: list[int] = []
    for part in rows.split(","):
        numbers += range(len(pairs))[slice(*(int(bound) if bound else None for bound in part.split(":")))]
    with out.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        for number in numbers:
            messages: Any = [{"role": "system", "content": model.system}, *pairs[number].messages]
            if sum(len(message["content"]) for message in pairs[number].messages) <= _MOST_CHARS:
                completion = client.chat.completions.create(
                    model=model.name,
                    messages=messages,
                    temperature=settings.temperature,
                    max_tokens=_ANSWER_TOKENS,
                    seed=number,
                    extra_body={**model.defaults, "cache_prompt": False},
                )
                answer = (completion.choices[0].message.content or "").strip()
                file.write(json.dumps({"pair": number, "answer": answer}).encode() + b"\n")


def _hashed_differences(pairs: Sequence[Pair]) -> tuple[Ints, Ints, Floats]:
    """Differences of the pairs' hashed features as coordinates: pairs, buckets and values, each of shape (nnz,)."""
    cells: dict[tuple[int, int], float] = {}
    for row, pair in enumerate(pairs):
        for sign, text in ((1.0, pair.chosen), (-1.0, pair.rejected)):
            buckets, value = features.hashed(text)
            for bucket in buckets.tolist():
                cells[row, bucket] = cells.get((row, bucket), 0.0) + sign * value
    places = np.array(list(cells), dtype=np.int64).reshape(-1, 2)
    return places[:, 0], places[:, 1], np.array(list(cells.values()), dtype=np.float64)


class Problem:
    """Feature differences of all n pairs, human ones first; their inner products make any subset quick to fit."""

    def __init__(self, human: Sequence[Pair], policy: Sequence[Pair], damaged: Sequence[Pair]) -> None:
        pairs = [*human, *policy, *damaged]
        self.human_count = len(human)
        # (n,), of each pair in the loss.
        self.weights = np.repeat([1.0, POLICY_WEIGHT, DAMAGED_WEIGHT], [len(human), len(policy), len(damaged)])
        # (n,): all pairs of one query share a fold.
        queries = [pair.messages[0]["content"].encode("utf-8", "replace") for pair in pairs]
        self.folds = np.array([zlib.crc32(query) % FOLDS for query in queries], dtype=np.int64)
        dense = np.array([features.dense(p.messages, p.chosen) - features.dense(p.messages, p.rejected) for p in pairs])
        self.spread = np.maximum(dense[: len(human)].std(axis=0), LEAST_SPREAD)  # (D,), D = len(features.NAMES)
        self.scaled = dense / self.spread  # (n, D)
        # The words of damaged texts mean nothing, so only their dense features count.
        self.rows, self.columns, self.values = _hashed_differences([*human, *policy])
        # (n, n): each block of features over its penalty.
        self.gram = self.scaled @ self.scaled.T / DENSE_PENALTY + self._hashed_gram() / HASHED_PENALTY

    def _hashed_gram(self) -> Floats:
        """Inner products of the pairs' hashed features, shape (n, n)."""
        gram = np.zeros((len(self.scaled), len(self.scaled)))
        for start in range(0, features.BUCKETS, _COLUMNS):
            here = (self.columns >= start) & (self.columns < start + _COLUMNS)
            block = np.zeros((len(self.scaled), _COLUMNS))
            block[self.rows[here], self.columns[here] - start] = self.values[here]
            gram += block @ block.T
        return gram

    def fit(self, train: Ints, strength: float) -> Floats:
        """One coefficient per training pair, shape (m,): the minimiser of the weighted logistic loss."""
        gram, weights = self.gram[np.ix_(train, train)] / strength, self.weights[train]
        margin = np.zeros(len(train))
        for _ in range(STEPS):
            chance = 1 / (1 + np.exp(-np.clip(margin, -30, 30)))
            curve = weights * np.maximum(chance * (1 - chance), 1e-4)
            target = margin + weights * (1 - chance) / curve
            coefficients = np.linalg.solve(gram + np.diag(1 / curve), target)
            margin = gram @ coefficients
        return np.asarray(coefficients, dtype=np.float64)

    def margins(self, train: Ints, test: Ints, strength: float) -> Floats:
        """R(chosen) − R(rejected) of the pairs `test`, by a head fitted on `train`."""
        return np.asarray(self.gram[np.ix_(test, train)] @ self.fit(train, strength) / strength)

    def best_strength(self, train: Ints) -> float:
        """The strength with the highest likelihood of human pairs in `train`, each fold predicted from the others."""
        folds = self.folds[train]

        def loss(strength: float) -> float:
            total = 0.0
            for fold in np.unique(folds):
                test = train[(folds == fold) & (train < self.human_count)]
                total += np.logaddexp(0, -self.margins(train[folds != fold], test, strength)).sum()
            return total

        return min(STRENGTHS, key=loss)

    def head(self, strength: float) -> Floats:
        """The weights of all features, shape (D + BUCKETS,), fitted on all pairs."""
        coefficients = self.fit(np.arange(len(self.scaled)), strength) / strength
        dense = self.scaled.T @ coefficients / DENSE_PENALTY / self.spread
        hashed = np.bincount(self.columns, self.values * coefficients[self.rows], minlength=features.BUCKETS)
        return np.concatenate([dense, hashed / HASHED_PENALTY])

    def cross_validate(self) -> Floats:
        """Margins of all pairs, (n,), each from a head fitted and tuned without any pair of the same query."""
        margins = np.zeros(len(self.scaled))
        for fold in np.unique(self.folds):
            train, test = np.flatnonzero(self.folds != fold), np.flatnonzero(self.folds == fold)
            margins[test] = self.margins(train, test, self.best_strength(train))
        return margins


def train(pairs_path: Path, answers_path: Path, out: Path) -> None:
    """Fit the head, print held-out figures and write the head to `out`."""
    pairs = read_pairs(pairs_path)
    if len(pairs) < 10:
        raise InputError(f"{pairs_path}: expected at least 10 usable pairs, got {len(pairs)}")
    sampled = policy_pairs(pairs, answers_path)
    even = [cut for pair in sampled if (cut := cut_to_equal_length(pair))]
    problem = Problem(pairs, even, damage([*pairs[::9], *(p._replace(chosen=p.rejected) for p in sampled[::5])]))
    human, policy, damaged = np.split(problem.cross_validate(), np.cumsum([len(pairs), len(even)]))
    words = np.array([[len(text.split()) for text in pair[1:]] for pair in pairs])
    _print_accuracy("preferences", human)
    _print_accuracy("preferences, lengths alike", human[4 * words.min(axis=1) >= 3 * words.max(axis=1)])
    _print_accuracy("policy, equal length", policy)
    _print_accuracy("damaged", damaged)
    head = problem.head(problem.best_strength(np.arange(len(problem.scaled))))
    write_scaled_head(out, head, [*pairs, *sampled])
    print(f"{out}: sha256 {EmbeddedReward(out).digest}")


def _print_accuracy(name: str, margins: Floats) -> None:
    if len(margins):
        right = np.mean((margins > 0) + 0.5 * (margins == 0))
        error = 100 * (right * (1 - right) / len(margins)) ** 0.5
        print(f"held-out accuracy, {name}: {100 * right:.1f} +- {error:.1f} % of {len(margins)} pairs ({FOLDS}-fold)")


def write_scaled_head(out: Path, head: Floats, pairs: Sequence[Pair]) -> None:
    """Write the head, shifted and scaled so that the texts of `pairs` score 0 ± 1 (mean and standard deviation)."""
    fields = {"format": np.array(FORMAT), "names": np.array(features.NAMES), "bias": np.array(0.0)}
    write_head(out, {**fields, "dense": head[:WIDTH], "hashed": head[WIDTH:]})
    items = [(pair.messages, text) for pair in pairs for text in (pair.chosen, pair.rejected)]
    scores = EmbeddedReward(out).score(items).astype(np.float64)
    scale = 1 / scores.std()
    fields["bias"] = np.array(np.round(-scores.mean() * scale, 3))
    # Rounding halves the file and hides the last bits, in which linear-algebra libraries differ.
    dense, hashed = np.round(head[:WIDTH] * scale, 4), (head[WIDTH:] * scale).astype(np.float16)
    dense[features.NAMES.index("placeholder")] = _PLACEHOLDER_WEIGHT
    write_head(out, {**fields, "dense": dense, "hashed": hashed})


def write_head(path: Path, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Write an npz whose bytes depend on the arrays alone; numpy's own writer adds the time of day."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, arrays[name], allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), buffer.getvalue())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python data/train_reward_head.py", description="Train the reward head.")
    parser.add_argument("command", nargs="?", choices=("train", "sample"), default="train")
    parser.add_argument("--pairs", type=Path, required=True, help="hh-rlhf transcripts, .jsonl or .jsonl.gz")
    parser.add_argument("--answers", type=Path, default=DATA / "reward-answers.jsonl.gz", help="what `sample` wrote")
    parser.add_argument("--out", type=Path, help="default: data/reward-head.npz, or data/reward-answers.jsonl.gz")
    parser.add_argument("--rows", default="0:", help="sample: which pairs, e.g. 0:243,700:950")
    args = parser.parse_args(argv)
    try:
        if args.command == "sample":
            sample(read_pairs(args.pairs), args.out or DATA / "reward-answers.jsonl.gz", args.rows)
        else:
            train(args.pairs, args.answers, args.out or DATA / "reward-head.npz")
    except CurationError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
