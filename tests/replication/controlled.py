"""`python -m tests.replication.controlled`: the methods on tasks whose right answers a program knows.

    pip install -e '.[train,dev]'
    python -m tests.replication.controlled [--out out/controlled] [--docs docs]

A small transformer learns three kinds of tasks from answers most of which hold the same slip. It answers new queries; answers
that the checker finds wrong are corrected by the program in their own wording; the pairs enter this pipeline as finished ones,
which filters and labels them. Each method then trains the policy for the same number of steps, with the learning rate of a grid
that does best on validation queries. A seed covers everything: policy, drafts, order and sampling. Each seed is a file in
`--out`: killed and started again, the command goes on.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.replication.methods import Method

MOST_TOKENS, SEQUENCES, GREEDY = 56, 32, 0.01
SIZES = (50, 200, 800, 3200)
RATES = (3e-5, 1e-4, 3e-4)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m tests.replication.controlled", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    p.add_argument("--out", type=Path, default=Path("out/controlled"), help="sets and results; resumable")
    p.add_argument("--docs", type=Path, help="write controlled.md and its plot in this folder, not in --out")
    p.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="pairs that are trained on")
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--pretraining", type=int, default=10000, help="steps of the policy's own training")
    p.add_argument("--slips", type=float, default=0.7, help="answers of that training with the usual mistake, of one")
    p.add_argument("--steps", type=int, default=100, help=f"optimiser steps of {SEQUENCES} sequences")
    p.add_argument("--queries", type=int, default=300, help="held-out queries; as many again for validation")
    p.add_argument("--methods", nargs="+", help="only these")
    return p


def main() -> int:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = parser().parse_args()
    results = [_seed(arguments, seed) for seed in range(arguments.seeds)]
    from tests.replication.controlled_report import write

    print(write(results, arguments.docs or arguments.out))
    return 0


def methods() -> dict[str, tuple[str, Method]]:
    """Of each method the set that it is trained on, and which of a pair's answers by which loss."""
    from tests.replication.methods import BOTH, METHODS, Method, figa

    return {name: ("set", method) for name, method in METHODS.items()} | {
        "figa, no negative term": ("no-negative", METHODS["figa"]),
        "figa, no gate": ("set", Method(BOTH, partial(figa, gate=math.inf))),
        "figa, gate 0.6 to 1.0": ("set", Method(BOTH, partial(figa, gate=(0.6, 1.0)))),
        "figa, bag of words": ("bag-of-words", METHODS["figa"]),
        "figa, phrase": ("phrase", METHODS["figa"]),
        "figa, constant": ("constant", METHODS["figa"]),
    }


def _seed(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """All results of one seed."""
    from pipeline.schema import digest
    from pipeline.storage.atomic import write_text

    plan = {n: v for n, v in vars(arguments).items() if n not in ("out", "docs", "seeds")}
    key = digest(json.dumps(plan, default=str), RATES, seed)
    path: Path = arguments.out / f"seed-{seed}.json"
    if path.exists() and (known := json.loads(path.read_text("utf-8")))["key"] == key:
        return dict(known)
    began = time.process_time()
    bench = Bench(arguments, seed)
    result = {"key": key, "seed": seed, "pairs": bench.count, "start": bench.measure(bench.held, start=True)}
    result["methods"] = {name: bench.curve(name) for name in arguments.methods or methods()}
    result["cpu_seconds"] = round(time.process_time() - began)
    write_text(path, json.dumps(result, indent=1) + "\n")
    return result


class Bench:
    """One seed's policy, its pairs, and the queries that it is measured on."""

    def __init__(self, arguments: argparse.Namespace, seed: int) -> None:
        from tests.replication import tasks, tiny

        self._arguments, self._number = arguments, seed
        rng, used = random.Random(seed), set[str]()
        self.held = tasks.distinct(arguments.queries, rng, used)
        self._validation = tasks.distinct(arguments.queries, rng, used)
        # Half of the drafts are right, or equal another one's pair.
        queries = tasks.distinct(3 * max(arguments.sizes) + 50, rng, used)
        self._policy = tiny.pretrain(arguments.pretraining, arguments.slips, seed, used)
        self._pairs = self._curated(queries)
        self.count = len(self._pairs["set"])
        self._drift = self._drift_from_start()

    def curve(self, name: str) -> list[dict[str, Any]]:
        """What the method reaches at each size, with the rate of the grid that is best on the validation queries."""
        found = []
        for size in self._arguments.sizes:
            tried = [(*self._trained(name, size, rate), rate) for rate in RATES]
            _, weights, rate = max(tried, key=lambda one: one[0])
            self._policy.model.load_state_dict(weights)
            found.append({"size": size, "rate": rate, **self.measure(self.held)})
            print(f"seed {self._number}, {name}, {size} pairs, rate {rate:g}: {found[-1]['right']:.0%}", flush=True)
        return found

    def measure(self, asked: Sequence[Any], *, start: bool = False) -> dict[str, Any]:
        """Shares of right answers, usual and other mistakes, per kind of task too; words of the reference's style; drift."""
        if start:
            self._policy.restart()
        answers = self._answers(asked, GREEDY)
        judged = [task.judge(answer) for task, answer in zip(asked, answers, strict=True)]
        kinds = Counter((task.kind, verdict) for task, verdict in zip(asked, judged, strict=True))
        totals = Counter(task.kind for task in asked)
        return {
            **{verdict: judged.count(verdict) / len(asked) for verdict in ("right", "slip", "other")},
            "by_kind": {f"{kind}, {verdict}": n / totals[kind] for (kind, verdict), n in sorted(kinds.items())},
            "reference_style": sum(answer.startswith("result") for answer in answers) / len(asked),
            "kl": self._drift.measure(),
        }

    def _trained(self, name: str, size: int, rate: float) -> tuple[float, dict[str, Any]]:
        """Train from the start; the share of right answers to the validation queries, and the weights."""
        from tests.replication.training import Budget, train

        data, method = methods()[name]
        budget = Budget(self._arguments.steps, SEQUENCES, 0)
        train(self._policy, self._pairs[data][:size], method, budget, rate, self._number)
        answers = self._answers(self._validation, GREEDY)
        right = sum(task.judge(text) == "right" for task, text in zip(self._validation, answers, strict=True))
        return right / len(answers), copy.deepcopy(self._policy.model.state_dict())

    def _answers(self, asked: Sequence[Any], temperature: float) -> list[str]:
        from tests.replication import answers, tiny

        prompts = [tiny.prompt_ids(task.query) for task in asked]
        sampled = answers.sample(self._policy.model, prompts, 0, MOST_TOKENS, temperature, self._number)
        return [tiny.text_of(answer.ids) for answer in sampled]

    def _drift_from_start(self) -> Any:
        from tests.replication import measures, tiny

        prompts = [tiny.prompt_ids(task.query) for task in self._validation]
        answers = [tiny.ids_of(answer) for answer in self._answers(self._validation, 1.0)]
        written = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        return measures.Drift(self._policy, measures.Replies(self._policy, written, list(map(len, prompts))))

    def _curated(self, queries: Sequence[Any]) -> dict[str, Any]:
        """The wrong drafts with their corrections, filtered and labelled by the pipeline."""
        from pipeline import open_dataset
        from pipeline.cli.main import main as figa
        from pipeline.labels.loading import open_tokenizer, settings_of
        from tests.replication import tiny
        from tests.replication.training import read_pairs

        folder = self._arguments.out / f"seed-{self._number}"
        folder.mkdir(parents=True, exist_ok=True)
        wrong = [
            (task, text)
            for task, text in zip(queries, self._answers(queries, 1.0), strict=True)
            if task.judge(text) != "right" and text
        ]
        rows = [
            {
                "instruction": task.query,
                "output": task.reference(),
                "original_output": text,
                "revised_output": task.correct(text),
            }
            for task, text in wrong
        ]
        source = folder / "pairs.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        tokenizer = tiny.save_tokenizer(folder / "tokenizer")
        made = folder / "set"
        _succeed(
            figa(
                [
                    "build",
                    "--source",
                    "spa",
                    "--input",
                    str(source),
                    "--out",
                    str(made),
                    "--prefect",
                    "off",
                    "--set",
                    f"labels.tokenizer={tokenizer}",
                    *_OPEN,
                ]
            )
        )
        sets = {"set": made}
        for name, flags in _RELABELLED.items():
            sets[name] = folder / name
            _succeed(figa(["relabel", str(made), "--out", str(sets[name]), *flags]))
        labels = open_dataset(made).manifest["labels"]
        reading = open_tokenizer(str(labels["tokenizer"]), settings_of(labels))
        return {name: read_pairs(path, self._policy, reading, math.inf) for name, path in sets.items()}


def _succeed(code: int) -> None:
    if code:
        raise SystemExit(f"curation ended with exit code {code}")


# A right answer may hold all of the reference's words, and no reward model judges it.
_OPEN = ("--set", "filter.min_reference_distance=0", "--set", "filter.max_distance=1")
_RELABELLED = {
    "no-negative": ("--beta", "0"),
    "bag-of-words": ("--signal", "bag_of_words"),
    "phrase": ("--granularity", "phrase"),
    "constant": ("--signal", "constant"),
}


if __name__ == "__main__":
    sys.exit(main())
