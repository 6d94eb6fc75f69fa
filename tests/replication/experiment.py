"""All runs of the experiment, one JSON file each: what is there is not done again.

A result's `key` covers what determined it (plan, pairs, queries), so after a change of any of them its run is repeated.
"""

from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from pipeline import open_dataset
from pipeline.labels.loading import open_tokenizer, settings_of
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.rewards.embedded import EmbeddedReward
from pipeline.schema import digest
from pipeline.storage.atomic import write_text
from tests.replication import answers, measures
from tests.replication.data import Queries
from tests.replication.methods import METHODS
from tests.replication.policy import Policy
from tests.replication.training import COLUMNS, Budget, read_pairs, train

START = "start"
_PROBED = 32
Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """rates: learning rates, of which each method gets its best. seeds: of the order of pairs and of the sampled answers.
    layers: how many of the top ones are trained."""

    budget: Budget
    rates: tuple[float, ...]
    seeds: int
    layers: int
    temperature: float
    most_tokens: int


class Run(NamedTuple):
    method: str
    rate: float
    seed: int

    @property
    def file(self) -> str:
        name = self.method.replace(", ", "-").replace(" ", "-")
        return f"{name}-{self.seed}.json" if self.method == START else f"{name}-{self.rate:g}-{self.seed}.json"


class Experiment:
    """The runs of one plan, whose results lie in `folder`. `data` is the published data set to train on."""

    def __init__(self, folder: Path, data: Path, queries: Queries, plan: Plan) -> None:
        self.data, self.queries, self.plan = data, queries, plan
        self._folder = folder / "results"
        rows = open_dataset(data).to_table(COLUMNS).to_pylist()
        # More seeds or rates leave the runs that are there as they are.
        same = replace(plan, seeds=0, rates=())
        self._key = digest(asdict(same), asdict(queries), rows)

    def runs(self) -> Iterator[Run]:
        """Every rate with seed 0, then the best rate with the other seeds.

        So what is there is of use whenever it is stopped. Which rate is the best is known when those before are done: do
        each run before taking the next.
        """
        yield Run(START, 0.0, 0)
        yield from (Run(name, rate, 0) for name in METHODS for rate in self.plan.rates)
        for seed in range(1, self.plan.seeds):
            yield from (Run(START, 0.0, seed), *(Run(name, self.best(name), seed) for name in METHODS))

    def run(self, load: Callable[[], Any]) -> None:
        """Do what is missing. `load` gives the starting policy, and is called only if there is something to do."""
        bench = None
        for run in self.runs():
            if self.result(run) is None:
                bench = bench or _Bench(load(), self.data, self.queries, self.plan)
                began = time.monotonic()
                result = {"key": self._key, **run._asdict(), **bench.result(run)}
                write_text(self._folder / run.file, json.dumps(result, indent=1) + "\n")
                print(f"{run.file}: {time.monotonic() - began:.0f} s", flush=True)

    def result(self, run: Run) -> Result | None:
        """What is there of this very plan, data and queries."""
        try:
            found: Result = json.loads((self._folder / run.file).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return found if found.get("key") == self._key else None

    def results(self, method: str) -> list[Result]:
        """A seed each, at the method's best rate."""
        rate = 0.0 if method == START else self.best(method)
        return [found for seed in range(self.plan.seeds) if (found := self.result(Run(method, rate, seed)))]

    def best(self, method: str) -> float:
        """Of the rates that are done, the one that wins most validation queries against the start's answers, with seed 0."""
        start = self.result(Run(START, 0.0, 0))
        known = {rate: found for rate in self.plan.rates if (found := self.result(Run(method, rate, 0)))}
        return max(known, key=lambda rate: wins(known[rate], start or {}, self.queries.validation), default=math.nan)


def wins(of: Result, start: Result, first: int) -> float:
    """Share of the `first` queries whose answer's reward is above that of the start's; an answer that is cut loses."""
    scores = [
        [-math.inf if cut else reward for reward, cut in zip(r["reward"][:first], r["cut"][:first], strict=True)]
        for r in (of, start)
    ]
    won = [(mine > theirs) + (mine == theirs) / 2 for mine, theirs in zip(*scores, strict=True)]
    return sum(won, 0.0) / max(1, first)


class _Bench:
    """What the runs share: the policy, the pairs as it sees them, the held-out queries."""

    def __init__(self, model: Any, data: Path, queries: Queries, plan: Plan) -> None:
        self._plan, self._queries = plan, queries.rows
        labels = open_dataset(data).manifest["labels"]
        self._tokenizer: LabelTokenizer = open_tokenizer(str(labels["tokenizer"]), settings_of(labels))
        self._policy, self._reward = Policy(model, plan.layers), EmbeddedReward()
        self._pairs = read_pairs(data, self._policy, self._tokenizer, plan.budget.max_length)
        asked = [self._tokenizer.tokenize(query["messages"], query["reference"])[0] for query in queries.rows]
        self._prompts = [answer.ids[: answer.prompt_length] for answer in asked]
        self._reported = queries.rows[queries.validation :]
        self._replies = [self._behind_prompts(side) for side in ("reference", "rejected")]
        written = [[*p, *answer.ids] for p, answer in zip(self._prompts[:_PROBED], self._sample(0), strict=False)]
        lengths = [len(prompt) for prompt in self._prompts[:_PROBED]]
        self._drift = measures.Drift(self._policy, measures.Replies(self._policy, written, lengths))

    def _behind_prompts(self, side: str) -> measures.Replies:
        known = [self._tokenizer.tokenize(query["messages"], query[side])[0] for query in self._reported]
        return measures.Replies(self._policy, [a.ids for a in known], [a.prompt_length for a in known])

    def result(self, run: Run) -> Result:
        # Models hold themselves in cycles, and a snapshot is large.
        gc.collect()
        began = time.process_time()
        self._policy.restart()
        trained: Result = {"pairs": len(self._pairs), "tokens": 0, "losses": []}
        if run.method != START:
            trained |= train(self._policy, self._pairs, METHODS[run.method], self._plan.budget, run.rate, run.seed)
        after = time.process_time()
        measured = self._measured(run.seed)
        cpu = {"training": round(after - began, 1), "evaluation": round(time.process_time() - after, 1)}
        return {"training": trained, "cpu_seconds": cpu, **measured}

    def _sample(self, seed: int) -> list[answers.Answer]:
        plan, model = self._plan, self._policy.snapshot()
        return answers.sample(model, self._prompts, self._tokenizer.eos_id, plan.most_tokens, plan.temperature, seed)

    def _measured(self, seed: int) -> Result:
        given = self._sample(seed)
        texts = [self._tokenizer.decode(answer.ids).strip() for answer in given]
        items = [(query["messages"], text) for query, text in zip(self._queries, texts, strict=True)]
        references = [query["reference"] for query in self._queries]
        better, worse = (of.logprobs() for of in self._replies)
        return {
            "answers": texts,
            "reward": self._reward.score(items).tolist(),
            "rouge_l": [measures.rouge_l(text, ref) for text, ref in zip(texts, references, strict=True)],
            "reference": better,
            "margin": [one - other for one, other in zip(better, worse, strict=True)],
            "length": [len(answer.ids) for answer in given],
            "cut": [answer.cut for answer in given],
            "distinct_2": measures.distinct(texts, 2),
            "kl": self._drift.measure(),
            "edit_logprobs": measures.edit_logprobs(self._policy, self._pairs[:_PROBED]),
        }
