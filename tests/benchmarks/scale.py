"""A million rows through all stages with a scripted model in the process: memory, time a row, what bookkeeping costs.

The model and the reward are functions that take next to no time. CPU seconds are counted apart for asking the model (prompts,
limits, retries: all that its event loop does but for the journal), for the tokenizer and for the reward; what is left is
storage and bookkeeping: planning, journal, stage files, selection, labels, publishing. The default thresholds select a third
of the rows; each of these asks twice more, for a diagnosis and a revision.
"""

from __future__ import annotations

import json
import random
import re
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.models.request import Provider
from pipeline.rewards.base import RewardModel
from tests.benchmarks.measure import Figure, child, peak_mb

_ROWS, _QUICK = (100_000, 1_000_000), (2_000, 10_000)
_DRAFT = re.compile(r"<draft-[0-9a-f]+>\s*(.*?)\s*</draft-", re.DOTALL)
_PARTS = ("asking", "tokenizer", "reward")


def run(*, quick: bool) -> list[Figure]:
    small, large = _QUICK if quick else _ROWS
    with tempfile.TemporaryDirectory() as name:
        tokenizer = _tokenizer(Path(name))
        first, second = (_child(Path(name), rows, tokenizer) for rows in (small, large))
        again = _child(Path(name), large, tokenizer)
    if again["calls"] or not second["published"]:
        raise SystemExit(f"a no-op rerun made {again['calls']} calls; {second['published']} rows were published")
    return [
        Figure("rows", large, f"rows, {second['published']} published, {second['calls']} calls"),
        Figure(f"time at {small:,} rows", 1e6 * first["wall"] / small, "µs a row"),
        Figure(f"time at {large:,} rows", 1e6 * second["wall"] / large, "µs a row"),
        Figure("the second, of the first", second["wall"] / large / (first["wall"] / small), "×", target="≤ 1.2"),
        Figure("CPU, all", 1e6 * second["cpu"] / large, "µs a row"),
        *(Figure(f"CPU, {part}", 1e6 * second[part] / large, "µs a row") for part in _PARTS),
        Figure("CPU, storage and bookkeeping", 1e6 * _own(second) / large, "µs a row", target="at most 200"),
        Figure("peak memory", second["peak_mb"], "MB", target="< 1500"),
        Figure("no-op rerun", again["wall"], "s", target="< 10"),
    ]


def _own(result: dict[str, float]) -> float:
    return result["cpu"] - sum(result[part] for part in _PARTS)


def _tokenizer(folder: Path) -> Path:
    from tests.labels.families import byte_level, fast

    fast(byte_level(vocab_size=8000)).save_pretrained(folder / "tokenizer")
    return folder / "tokenizer"


def _child(folder: Path, rows: int, tokenizer: Path) -> dict[str, float]:
    path = folder / f"{rows}.jsonl"
    if not path.exists():
        _write(path, rows)
    # The tokenizer's own threads would escape the clock.
    arguments = (str(path), str(folder / f"out-{rows}"), str(tokenizer))
    done = child("tests.benchmarks.scale", *arguments, TOKENIZERS_PARALLELISM="false")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _write(path: Path, rows: int) -> None:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(3000)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            prompt = f"{number} {' '.join(draw.choices(words, k=draw.randint(8, 24)))}?"
            response = " ".join(draw.choices(words, k=draw.randint(20, 60)))
            file.write(json.dumps({"prompt": prompt, "response": response}) + "\n")


# Below: what the children do.


class _Clock:
    """CPU seconds of the calling threads, by what they were spent on."""

    def __init__(self) -> None:
        self.seconds = {"tokenizer": 0.0, "reward": 0.0, "journal": 0.0}

    def timed(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.thread_time()
            try:
                return work(*arguments, **named)
            finally:
                self.seconds[part] += time.thread_time() - start

        return timed


class _ScriptedModel(Provider):
    """Answers with the query's own words; diagnoses one reason; revises by a word at the end."""

    async def complete(self, request: Any, on_quotas: Any) -> Any:
        from pipeline.models.journal import Answer

        said = request.messages[-1]["content"]
        if "response_format" in request.params:
            text = '{"reason": "inaccuracy"}'
        elif len(request.messages) > 1:
            text = f"{_DRAFT.search(request.messages[0]['content'])[1]} indeed"  # type: ignore[index]
        else:
            text = f"Well, {said[:-1]} it is, I think."
        return Answer(text, "stop", request.max_tokens, 50, 50)

    async def close(self) -> None: ...


class _ScriptedReward(RewardModel):
    """A number by the text's hash; a reference has more than an answer, a revision, known by its word, the most."""

    name, digest = "scripted", "scripted"

    def score(self, items: Sequence[tuple[Any, str]], references: Sequence[str]) -> Any:
        return np.array([_number(text) for _, text in items], np.float32)


def _number(text: str) -> float:
    if text.endswith(" indeed"):
        return 2.0
    return (zlib.crc32(text.encode()) % 997) / 997 + (0 if text.endswith("think.") else 0.5)


def main() -> None:
    source, out, tokenizer = sys.argv[1:]
    clock = _scripted()
    few = Path(out).with_name("few.jsonl")
    _write(few, 50)
    with tempfile.TemporaryDirectory() as warm:
        # Imports and the first use of everything are a matter of seconds, not of rows.
        _curate(str(few), warm, tokenizer)
    clock.seconds = dict.fromkeys(clock.seconds, 0.0)
    start, cpu, asking = time.perf_counter(), time.process_time(), _loop_seconds()
    outcome = _curate(source, out, tokenizer)
    told = {
        "wall": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "asking": _loop_seconds() - asking - clock.seconds["journal"],
        "peak_mb": peak_mb(),
        "calls": outcome.calls,
        "published": outcome.manifest["rows"]["published"],
    }
    print(json.dumps(clock.seconds | told))


def _scripted() -> _Clock:
    """Put the scripted model and reward in the places of real ones, and a clock on what is counted apart."""
    from pipeline import rewards
    from pipeline.labels.tokenizer import LabelTokenizer
    from pipeline.models import factory, journal

    clock, reward = _Clock(), _ScriptedReward()
    replaced: list[tuple[Any, str, Callable[..., Any]]] = [
        (factory, "_remote", lambda *_: _ScriptedModel()),
        (rewards, "load_reward", lambda settings, *more: reward),
        (reward, "score", clock.timed("reward", reward.score)),
        (LabelTokenizer, "tokenize", clock.timed("tokenizer", LabelTokenizer.tokenize)),
        # What the journal does on the event loop; the rest of it has threads of its own.
        (journal.Journal, "get", clock.timed("journal", journal.Journal.get)),
        (journal.Answer, "to_json", clock.timed("journal", journal.Answer.to_json)),
    ]
    for owner, name, work in replaced:
        setattr(owner, name, work)
    return clock


def _curate(source: str, out: str, tokenizer: str) -> Any:
    from pipeline.config.loading import load_config
    from pipeline.curate import curate, in_threads
    from tests.conftest import Silent

    flags = {
        "source.name": "jsonl",
        "source.input": source,
        "policy.model": "openai/policy@http://127.0.0.1:9/v1",
        "reviser.model": "openai/reviser@http://127.0.0.1:9/v1",
        "labels.tokenizer": tokenizer,
        "output.dir": out,
    }
    return curate(load_config(flags=flags), in_threads, Silent())


def _loop_seconds() -> float:
    """CPU seconds of the thread on which all calls of models run."""
    from pipeline.models import event_loop

    async def seconds() -> float:
        return time.thread_time()

    return event_loop.run(seconds())


if __name__ == "__main__":
    main()
