"""All runs of the experiment, one JSON file each: what is there is not done again.

A result's `key` covers what determined it (plan, data set, queries), so after a change of any of them its run is repeated.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import open_dataset
from pipeline.labels.loading import open_tokenizer, settings_of
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.rewards.embedded import EmbeddedReward
from pipeline.schema import digest
from pipeline.storage.atomic import write_text
from tests.replication import answers, measures
from tests.replication.judge import Judge
from tests.replication.methods import METHODS
from tests.replication.policy import Policy
from tests.replication.rows import Shared
from tests.replication.training import Budget, Pairs, read_pairs, train

START = "start"
PLAIN = ("figa", "sft-reference", "sft-revision", "dpo")
_PROBED = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """seeds: of the order of pairs and of the sampled answers. layers: how many of the top ones are trained."""

    budget: Budget
    seeds: int
    layers: int
    temperature: float
    most_tokens: int


def order(seeds: int) -> list[tuple[str, int]]:
    """The comparison first, then the ablations, so that a run that is cut short has the former whole."""
    rest = [name for name in METHODS if name not in PLAIN]
    return [(name, seed) for group in ((START, *PLAIN), rest) for seed in range(seeds) for name in group]


def run(folder: Path, load: Callable[[], Any], sets: Mapping[str, Path], shared: Shared, plan: Plan) -> None:
    """Do what is missing in `folder`. `load` gives the starting policy, and is called only if there is something to do."""
    keys = _keys(sets, shared, plan)
    missing = [(name, seed) for name, seed in order(plan.seeds) if not _done(_path(folder, name, seed), keys[name])]
    if not missing:
        return
    bench = _Bench(load(), sets, shared, plan)
    began = time.monotonic()
    for number, (name, seed) in enumerate(missing, 1):
        result = {"key": keys[name], "method": name, "seed": seed, **bench.result(name, seed)}
        write_text(_path(folder, name, seed), json.dumps(result, indent=1) + "\n")
        left = (time.monotonic() - began) / number * (len(missing) - number)
        print(f"{number}/{len(missing)} {name}, seed {seed}: about {left / 60:.0f} min left", flush=True)


def results(folder: Path, sets: Mapping[str, Path], shared: Shared, plan: Plan) -> list[dict[str, Any]]:
    """What is there of this very plan, data and queries."""
    keys = _keys(sets, shared, plan)
    paths = [(name, _path(folder, name, seed)) for name, seed in order(plan.seeds)]
    return [json.loads(path.read_text("utf-8")) for name, path in paths if _done(path, keys[name])]


class _Bench:
    """What the runs share: the policy, the pairs as it sees them, the held-out prompts."""

    def __init__(self, model: Any, sets: Mapping[str, Path], shared: Shared, plan: Plan) -> None:
        self._sets, self._plan, self._queries = sets, plan, shared.queries
        labels = open_dataset(sets["set"]).manifest["labels"]
        self._tokenizer: LabelTokenizer = open_tokenizer(str(labels["tokenizer"]), settings_of(labels))
        asked = [self._tokenizer.tokenize(query["messages"], query["reference"])[0] for query in shared.queries]
        self._prompts = [answer.ids[: answer.prompt_length] for answer in asked]
        self._judge, self._reward = Judge(shared.chosen, shared.rejected), EmbeddedReward()
        self._policy = Policy(model, plan.layers)
        self._pairs: dict[str, Pairs] = {}
        self._probed = self._read("set")[:_PROBED]
        self._drift = measures.Drift(self._policy, self._prompts, [answer.ids for answer in self._sample(0)])

    def result(self, name: str, seed: int) -> dict[str, Any]:
        began = time.process_time()
        if name == START:
            self._policy.restart()
            trained: dict[str, Any] = {"pairs": 0, "tokens": 0, "losses": []}
        else:
            method = METHODS[name]
            trained = train(self._policy, self._read(method.data), method, self._plan.budget, seed)
        after = time.process_time()
        measured = self._measured(seed)
        cpu = {"training": round(after - began, 1), "evaluation": round(time.process_time() - after, 1)}
        return {"training": trained, "cpu_seconds": cpu, **measured}

    def _read(self, name: str) -> Pairs:
        if name not in self._pairs:
            self._policy.restart()
            length = self._plan.budget.max_length
            self._pairs[name] = read_pairs(self._sets[name], self._policy, self._tokenizer, length)
        return self._pairs[name]

    def _sample(self, seed: int) -> list[answers.Answer]:
        snapshot = self._policy.snapshot()
        plan = self._plan
        given = answers.sample(
            snapshot, self._prompts, self._tokenizer.eos_id, plan.most_tokens, plan.temperature, seed
        )
        del snapshot
        gc.collect()
        return given

    def _measured(self, seed: int) -> dict[str, Any]:
        given = self._sample(seed)
        texts = [self._tokenizer.decode(answer.ids).strip() for answer in given]
        items = [(query["messages"], text) for query, text in zip(self._queries, texts, strict=True)]
        references = [query["reference"] for query in self._queries]
        return {
            "answers": texts,
            "reward": self._reward.score(items).tolist(),
            "judge": self._judge.score(texts).tolist(),
            "rouge_l": [measures.rouge_l(text, ref) for text, ref in zip(texts, references, strict=True)],
            "length": [len(answer.ids) for answer in given],
            "cut": [answer.cut for answer in given],
            "distinct_2": measures.distinct(texts, 2),
            "kl": self._drift.measure(),
            "edit_logprobs": measures.edit_logprobs(self._policy, self._probed),
        }


def _keys(sets: Mapping[str, Path], shared: Shared, plan: Plan) -> dict[str, str]:
    return {name: digest(asdict(plan), asdict(shared), _data_of(sets, name)) for name in (START, *METHODS)}


def _data_of(sets: Mapping[str, Path], name: str) -> list[str]:
    """The data set's content, whatever its folder is called; the start has none."""
    return (
        [file["sha256"] for file in open_dataset(sets[METHODS[name].data]).manifest["files"]] if name in METHODS else []
    )


def _path(folder: Path, name: str, seed: int) -> Path:
    return folder / "results" / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}.json"


def _done(path: Path, key: str) -> bool:
    try:
        return bool(json.loads(path.read_text("utf-8"))["key"] == key)
    except (OSError, ValueError, KeyError):
        return False
