"""Train the head of the embedded reward and print its accuracy on held-out pairs.

    python data/train_reward_head.py --pairs harmless.jsonl.gz --preferences FOLDER [--answers FILE] [--out reward-head.npz]
    python data/train_reward_head.py sample --pairs harmless.jsonl.gz --preferences FOLDER --out answers.jsonl.gz

`--pairs` holds hh-rlhf transcripts, of which the first HH_PAIRS are used; `--preferences` holds the files of BROAD and
MEASURED, one pair a line: prompt (messages), chosen, rejected. `--answers` holds answers of the embedded policy to some of
these queries, as `sample` writes them. data/README.md has the files' sha256.

Both experts are Bradley–Terry models, R(chosen) > R(rejected), linear in feature differences: one learns from hh-rlhf, the
other from the broad sets, and both from reference-versus-policy pairs and damaged texts, with the weights of WEIGHTS. The gate
is a logistic regression on n-grams of the queries: hh-rlhf or broad. All three have a ridge penalty and are fitted by Newton's
method with conjugate gradients. Same input, same bytes.
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
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import openai

from pipeline.config.settings import SourceSettings
from pipeline.errors import CurationError, InputError
from pipeline.models.local import catalog
from pipeline.models.local.download import fetch
from pipeline.models.local.server import serve
from pipeline.rewards import check, features
from pipeline.rewards.check import Pair
from pipeline.rewards.diagnostics import wilson
from pipeline.rewards.embedded import FORMAT, EmbeddedReward

Floats = npt.NDArray[np.float64]

DATA = Path(__file__).parent
HH_PAIRS = 974  # the usable ones of the first 1,000 rows; later rows are left for checks
BROAD = {"pandalm": "pandalm_human", "oasst": "oasst_100_trees", "finegrained": "finegrained_qa_human"}
# Adversarial: the better answer looks worse. Too few to train on, so only measured.
MEASURED = {f"llmbar {name}": f"llmbar_{name}" for name in ("neighbor", "gptinst", "gptout", "manual")}
FOLDS, NEWTON_STEPS, GRADIENT_STEPS = 5, 4, 40
# Of a dense feature in units of its standard deviation, of a hashed one, and of a hashed one of the gate.
DENSE_PENALTY, HASHED_PENALTY, GATE_PENALTY = 300.0, 3.0, 0.1
LEAST_SPREAD = 0.05  # a feature that hardly varies is not scaled up beyond this
# A pair's weight by its kind, for the two experts: chosen by cross-validation inside the training data.
WEIGHTS: tuple[dict[str, float], dict[str, float]] = (
    {"hh": 1.0, "policy hh": 0.5, "policy hh, equal length": 1.5, "policy oasst, equal length": 0.8, "damaged": 0.2},
    {"pandalm": 1.0, "oasst": 1.0, "finegrained": 0.5, "policy oasst": 1.2, "policy oasst, equal length": 4.0}
    | {"policy hh, equal length": 2.0, "damaged": 0.2},
)
OASST_IN_GATE = 6.0
MOST_PER_QUERY = 6  # pairs; the question-answering set has many nearly equal ones
# Set by hand, in units of the reward: raters hardly saw forms to fill in, but training data must not have them.
_PLACEHOLDER_WEIGHT = -1.0
# For sampling.
_POLICY, _TEMPERATURE, _ANSWER_TOKENS, _MOST_CHARS = "qwen2.5-coder-1.5b-instruct", 0.7, 128, {"hh": 700, "oasst": 1200}
_SYSTEM = "You are a helpful and harmless assistant. Answer in two or three full sentences."


class Labelled(NamedTuple):
    """A pair and its kind, by which it is weighted and reported."""

    kind: str
    pair: Pair


def read_pairs(path: Path) -> list[Pair]:
    """The first HH_PAIRS usable pairs of a transcript file. Raises InputError."""
    settings = SourceSettings(name="hh-rlhf", input=str(path))
    return check.read_pairs(settings, HH_PAIRS, lambda warning: print(f"note: {warning}", file=sys.stderr))[0]


def read_preferences(path: Path) -> list[Pair]:
    """The pairs of one file of the broad sets. Raises InputError."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            pairs = [Pair(row["prompt"], row["chosen"], row["rejected"]) for row in map(json.loads, lines)]
        return [
            pair for pair in pairs if pair.chosen.strip() and pair.rejected.strip() and pair.chosen != pair.rejected
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: expected lines with prompt, chosen and rejected: {error!r}") from error


def references(hh: Sequence[Pair], oasst: Sequence[Pair]) -> dict[str, list[Pair]]:
    """Queries with a reference that the policy may be compared with: hh-rlhf's chosen reply, OASST's best-ranked one.

    `rejected` is empty.
    """
    ranks: dict[str, tuple[Pair, Counter[str]]] = {}
    for pair in oasst:
        _, rank = ranks.setdefault(json.dumps(pair.messages), (pair, Counter()))
        rank.update([pair.chosen])
        rank.subtract([pair.rejected])
    best = [Pair(pair.messages, max(rank, key=lambda text: rank[text]), "") for pair, rank in ranks.values()]
    return {"hh": [pair._replace(rejected="") for pair in hh], "oasst": best}


def policy_pairs(queries: Mapping[str, Sequence[Pair]], path: Path) -> list[Labelled]:
    """The reference against the policy's answer, for each answer in `path`. Raises InputError."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            answers = [json.loads(line) for line in lines]
        pairs = [
            (each["set"], queries[each["set"]][each["query"]]._replace(rejected=each["answer"])) for each in answers
        ]
        return [Labelled(f"policy {name}", pair) for name, pair in pairs if pair.rejected not in ("", pair.chosen)]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(
            f"{path}: expected answers to these queries, as `data/train_reward_head.py sample` writes them: {error!r}"
        ) from error


def sample(queries: Mapping[str, Sequence[Pair]], out: Path, most: int) -> None:
    """Write the embedded policy's answers to `most` queries in a fixed random order, the two sets in turn, to `out`.

    One call at a time, no cache and a seed per query: the same answers each time on one machine.
    """
    model = catalog.get(_POLICY)
    server = serve(fetch(model))
    client = openai.OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0, timeout=600)
    with out.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        for seed, (name, number) in enumerate(_in_turn(queries)[:most]):
            messages: Any = [{"role": "system", "content": _SYSTEM}, *queries[name][number].messages]
            completion = client.chat.completions.create(
                model=model.name,
                messages=messages,
                temperature=_TEMPERATURE,
                max_tokens=_ANSWER_TOKENS,
                seed=seed,
                extra_body={"cache_prompt": False},
            )
            answer = (completion.choices[0].message.content or "").strip()
            file.write(json.dumps({"set": name, "query": number, "answer": answer}).encode() + b"\n")


def _in_turn(queries: Mapping[str, Sequence[Pair]]) -> list[tuple[str, int]]:
    rng = random.Random(5)  # noqa: S311  a seed, not a secret
    orders: dict[str, list[int]] = {}
    for name, most in _MOST_CHARS.items():
        orders[name] = [
            n for n, pair in enumerate(queries[name]) if sum(len(m["content"]) for m in pair.messages) <= most
        ]
        rng.shuffle(orders[name])
    turns = range(max(map(len, orders.values())))
    return [(name, orders[name][turn]) for turn in turns for name in ("oasst", "hh") if turn < len(orders[name])]


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


def gather(hh: Sequence[Pair], broad: Mapping[str, Sequence[Pair]], answers: Path) -> list[Labelled]:
    """All pairs to train on or to measure, by kind."""
    policy = policy_pairs(references(hh, broad["oasst"]), answers)
    even = [Labelled(f"{kind}, equal length", cut) for kind, pair in policy if (cut := cut_to_equal_length(pair))]
    human = [Labelled("hh", pair) for pair in hh]
    human += [Labelled(name, pair) for name, pairs in broad.items() for pair in pairs]
    spoiled = damage(
        [*hh[::9], *broad["oasst"][::9], *(pair._replace(chosen=pair.rejected) for _, pair in policy[::2])]
    )
    return [*human, *policy, *even, *(Labelled("damaged", pair) for pair in spoiled)]


class Sparse:
    """A matrix of hashed n-grams, shape (n, BUCKETS), as coordinates."""

    def __init__(self, rows: Iterable[Iterable[tuple[float, str]]]) -> None:
        """`rows` are sums of texts' vectors, each times a factor."""
        row: list[npt.NDArray[np.int64]] = []
        columns, values = [], []
        for number, texts in enumerate(rows):
            for factor, text in texts:
                buckets, value = features.hashed(text)
                row.append(np.full(len(buckets), number))
                columns.append(buckets)
                values.append(np.full(len(buckets), factor * value))
        self.row, self.column, self.value = np.concatenate(row), np.concatenate(columns), np.concatenate(values)

    def times(self, vector: Floats, n: int) -> Floats:
        """The product with a vector of shape (BUCKETS,), shape (n,)."""
        return np.bincount(self.row, self.value * vector[self.column], minlength=n).astype(np.float64)

    def transposed_times(self, vector: Floats) -> Floats:
        """The transposed matrix's product with a vector of shape (n,), shape (BUCKETS,)."""
        return np.bincount(self.column, self.value * vector[self.row], minlength=features.BUCKETS).astype(np.float64)


def fit(dense: Floats, dense_penalty: float, hashed: Sparse, hashed_penalty: float, weights: Floats) -> Floats:
    """The minimiser of Σ weights · log(1 + exp(−margin)) + ½ penalty · |head|², shape (D + BUCKETS,).

    dense: (n, D); weights: (n,), 0 for pairs to leave out.
    """
    width, n = dense.shape[1], len(dense)
    scale = np.repeat([dense_penalty**-0.5, hashed_penalty**-0.5], [width, features.BUCKETS])
    head = np.zeros(len(scale))

    def margins(vector: Floats) -> Floats:
        scaled = vector * scale
        return np.asarray(dense @ scaled[:width] + hashed.times(scaled[width:], n))

    def back(vector: Floats) -> Floats:
        return np.asarray(np.concatenate([dense.T @ vector, hashed.transposed_times(vector)]) * scale)

    for _ in range(NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(margins(head), -30, 30)))
        curve = weights * np.maximum(chance * (1 - chance), 1e-4)
        step, residual = np.zeros(len(scale)), back(weights * (1 - chance)) - head
        direction, size = residual.copy(), float(residual @ residual)
        enough = 1e-8 * size
        for _ in range(GRADIENT_STEPS):
            curved = direction + back(curve * margins(direction))
            along = size / float(direction @ curved)
            step += along * direction
            residual -= along * curved
            size, before = float(residual @ residual), size
            if size <= enough:
                break
            direction = residual + size / before * direction
        head += step
    return np.asarray(head * scale)


class Problem:
    """The features of all n pairs; fits experts and gate on any subset."""

    def __init__(self, labelled: Sequence[Labelled]) -> None:
        pairs = [pair for _, pair in labelled]
        self.kinds = np.array([kind for kind, _ in labelled])
        queries = [pair.messages[0]["content"].encode("utf-8", "replace") for pair in pairs]
        self.folds = np.array([zlib.crc32(query) % FOLDS for query in queries])  # (n,): one query, one fold
        dense = np.array([features.dense(p.messages, p.chosen) - features.dense(p.messages, p.rejected) for p in pairs])
        self.spread = np.maximum(dense[self.kinds != "damaged"].std(axis=0), LEAST_SPREAD)
        self.dense = dense / self.spread  # (n, D)
        # The words of damaged texts mean nothing, so only their dense features count.
        self.hashed = Sparse(
            () if kind == "damaged" else ((1.0, pair.chosen), (-1.0, pair.rejected)) for kind, pair in labelled
        )
        counts: Counter[tuple[str, bytes]] = Counter()
        self.kept = np.ones(len(pairs), dtype=bool)
        for row, key in enumerate(zip(self.kinds.tolist(), queries, strict=True)):
            counts[key] += 1
            self.kept[row] = self.kinds[row] != "finegrained" or counts[key] <= MOST_PER_QUERY
        self.queries = Sparse([(1.0, features.query_text(pair.messages))] for pair in pairs)
        self._gate_data(labelled)

    def _gate_data(self, labelled: Sequence[Labelled]) -> None:
        """The distinct queries of people's pairs, for the gate: n-grams times the label, +1 for hh-rlhf and −1 for the rest."""
        human = {"hh", *BROAD, *MEASURED}
        kinds: dict[str, tuple[str, int]] = {}
        for fold, (kind, pair) in zip(self.folds.tolist(), labelled, strict=True):
            if kind in human:
                kinds.setdefault(features.query_text(pair.messages), (kind, fold))
        labels = [1.0 if kind == "hh" else -1.0 for kind, _ in kinds.values()]
        self.gate_labels = np.array(labels)[:, None]
        self.gate_folds = np.array([fold for _, fold in kinds.values()])
        balance = labels.count(1.0) / max(1, labels.count(-1.0))
        by_kind = {"hh": 1.0, "oasst": OASST_IN_GATE * balance}
        self.gate_weights = np.array([by_kind.get(kind, balance) for kind, _ in kinds.values()])
        self.gate_queries = Sparse([(label, text)] for label, text in zip(labels, kinds, strict=True))

    def expert(self, number: int, fold: int | None = None) -> Floats:
        """Expert 0 (hh-rlhf) or 1 (broad), shape (D + BUCKETS,), fitted on all pairs outside `fold`."""
        weights = np.array([WEIGHTS[number].get(kind, 0.0) for kind in self.kinds]) * self.kept * (self.folds != fold)
        return fit(self.dense, DENSE_PENALTY, self.hashed, HASHED_PENALTY, weights)

    def gate(self, fold: int | None = None) -> Floats:
        """Bias and weights of the gate, shape (1 + BUCKETS,), fitted on all queries outside `fold`."""
        weights = self.gate_weights * (self.gate_folds != fold)
        return fit(self.gate_labels, 1.0, self.gate_queries, GATE_PENALTY, weights)

    def margins(self, heads: Sequence[Floats]) -> Floats:
        """R(chosen) − R(rejected) of all pairs, (n,), by both experts and the gate."""
        width, n = self.dense.shape[1], len(self.dense)
        hh, broad = (self.dense @ head[:width] + self.hashed.times(head[width:], n) for head in heads[:2])
        share = 1 / (1 + np.exp(-heads[2][0] - self.queries.times(heads[2][1:], n)))
        return np.asarray(share * hh + (1 - share) * broad)

    def heads(self, fold: int | None = None) -> list[Floats]:
        """Both experts and the gate."""
        return [self.expert(0, fold), self.expert(1, fold), self.gate(fold)]

    def cross_validate(self) -> Floats:
        """Margins of all pairs, (n,), each from heads fitted without any pair of the same query."""
        margins = np.zeros(len(self.dense))
        for fold in range(FOLDS):
            margins[self.folds == fold] = self.margins(self.heads(fold))[self.folds == fold]
        return margins


def train(args: argparse.Namespace) -> None:
    """Fit the head, print held-out figures and write the head to `args.out`."""
    hh = read_pairs(args.pairs)
    broad = {name: read_preferences(args.preferences / f"{file}.jsonl.gz") for name, file in (BROAD | MEASURED).items()}
    labelled = gather(hh, broad, args.answers or DATA / "reward-answers.jsonl.gz")
    problem = Problem(labelled)
    print_accuracy(problem.kinds, problem.cross_validate())
    out = args.out or DATA / "reward-head.npz"
    write_scaled_head(
        out, problem, [pair for kind, pair in labelled if kind in {"hh", *BROAD, "policy hh", "policy oasst"}]
    )
    print(f"{out}: sha256 {EmbeddedReward(out).digest}")


def print_accuracy(kinds: npt.NDArray[np.str_], margins: Floats) -> None:
    """Print the share of pairs with a positive margin, with its 95 % interval (Wilson), by kind and for the broad sets."""
    rows = {kind: kinds == kind for kind in dict.fromkeys(kinds.tolist())}
    rows["broad"], rows["broad and llmbar"] = (np.isin(kinds, list(names)) for names in (BROAD, BROAD | MEASURED))
    for kind, of in rows.items():
        right = float(np.sum(margins[of] > 0) + 0.5 * np.sum(margins[of] == 0))
        low, high = wilson(right, int(of.sum()))
        share = right / max(1, int(of.sum()))
        print(f"held-out, {kind}: {share:.1%} of {of.sum()} pairs ({low:.1%} to {high:.1%}), {FOLDS}-fold by query")


def write_scaled_head(out: Path, problem: Problem, pairs: Sequence[Pair]) -> None:
    """Write the head, shifted and scaled so that the texts of `pairs` score 0 by each expert, ± 1 by both."""
    width = problem.dense.shape[1]
    *experts, gate = problem.heads()
    dense = np.array([expert[:width] / problem.spread for expert in experts])  # (2, D)
    hashed = np.array([expert[width:] for expert in experts])  # (2, BUCKETS)
    placeholder = features.NAMES.index("placeholder")
    fields = {"format": np.array(FORMAT), "names": np.array(features.NAMES), "bias": np.zeros(2)}
    fields |= {"gate": gate[1:].astype(np.float16), "gate_bias": np.array(np.round(gate[0], 4))}
    write_head(out, {**fields, "dense": dense, "hashed": hashed})
    items = [(pair.messages, text) for pair in pairs for text in (pair.chosen, pair.rejected)]
    raw = EmbeddedReward(out)
    scores = np.array([raw.by_expert(*item) for item in items])  # (texts, 2)
    shares = np.array([raw.share_of_first(messages) for messages, _ in items])
    centred = scores - scores.mean(axis=0)
    scale = 1 / (shares * centred[:, 0] + (1 - shares) * centred[:, 1]).std()
    fields["bias"] = np.round(-scores.mean(axis=0) * scale, 3)
    # Rounding halves the file and hides the last bits, in which linear-algebra libraries differ.
    dense = np.round(dense * scale, 4)
    dense[:, placeholder] = _PLACEHOLDER_WEIGHT
    write_head(out, {**fields, "dense": dense, "hashed": (hashed * scale).astype(np.float16)})


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
    parser.add_argument("--preferences", type=Path, required=True, help="folder of the other preference sets")
    parser.add_argument("--answers", type=Path, help="what `sample` wrote; default: data/reward-answers.jsonl.gz")
    parser.add_argument("--out", type=Path, help="default: data/reward-head.npz, or data/reward-answers.jsonl.gz")
    parser.add_argument("--most", type=int, default=200, help="sample: answers to so many queries")
    args = parser.parse_args(argv)
    try:
        if args.command == "sample":
            oasst = read_preferences(args.preferences / f"{BROAD['oasst']}.jsonl.gz")
            sample(references(read_pairs(args.pairs), oasst), args.out or DATA / "reward-answers.jsonl.gz", args.most)
        else:
            train(args)
    except CurationError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
