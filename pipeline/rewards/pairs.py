"""Pairs for the reward head: read from transcripts, cut to equal length, damaged on purpose, or sampled from a server."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, cast

from pipeline.errors import InputError, RowReject
from pipeline.sources import hh_rlhf


class Pair(NamedTuple):
    """Two answers to the same messages; the first is the better one."""

    messages: list[dict[str, str]]
    chosen: str
    rejected: str


def read_pairs(path: Path) -> list[Pair]:
    """The usable pairs of a transcript file, in its order. Raises InputError on a line that is not JSON."""
    pairs = []
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = hh_rlhf.parse(json.loads(line))
            except ValueError as error:
                raise InputError(f"{path}, line {number}: expected a JSON object: {error}") from error
            except RowReject:
                continue
            if row.rejected and row.rejected != row.reference:
                pairs.append(Pair([dict(m) for m in row.messages], row.reference, row.rejected))
    return pairs


# ---- damage -------------------------------------------------------------------------------------------------------------


def cut_even(pair: Pair) -> Pair | None:
    """Both texts cut to one word less than the shorter has, so that neither length nor a clean ending gives one away."""
    ends = [[m.end() for m in re.finditer(r"\S+", text)] for text in (pair.chosen, pair.rejected)]
    words = min(map(len, ends)) - 1
    if words < 4:
        return None
    return Pair(pair.messages, pair.chosen[: ends[0][words - 1]], pair.rejected[: ends[1][words - 1]])


def _loop(rng: random.Random, sentences: list[str], pair: Pair) -> str:
    """The same length, but from some sentence on it only says that sentence again."""
    at = rng.randrange(len(sentences) - 1) if len(sentences) > 1 else 0
    stuck = sentences[: at + 1] + sentences[at : at + 1] * 50
    return " ".join(" ".join(stuck).split()[: max(len(pair.chosen.split()), 2 * len(sentences[0].split()))])


def _parrot(rng: random.Random, sentences: list[str], pair: Pair) -> str:
    """The question again, in place of an answer or of its beginning."""
    question = pair.messages[-1]["content"]
    return question if rng.random() < 0.5 else " ".join([question, *sentences[1:]])


_DAMAGE: tuple[Callable[[random.Random, list[str], Pair], str], ...] = (_loop, _parrot)


def spoil(pairs: Sequence[Pair]) -> list[Pair]:
    """Each chosen text against damaged forms of itself and against the answer to another query, nearest in length."""
    spoiled = []
    for number, pair in enumerate(pairs):
        rng = random.Random(f"spoil {number}")  # noqa: S311  a seed, not a secret
        sentences = re.split(r"(?<=[.!?])\s+", pair.chosen)
        others = [p for p in rng.sample(pairs, min(40, len(pairs))) if p.messages != pair.messages]
        stray = min(others, key=lambda p: abs(len(p.chosen) - len(pair.chosen)), default=pair)
        worse = [stray.chosen, *(damage(rng, sentences, pair) for damage in _DAMAGE)]
        spoiled += [Pair(pair.messages, pair.chosen, text) for text in worse if text.strip() and text != pair.chosen]
    return spoiled


# ---- the model ----------------------------------------------------------------------------------------------------------


def sample(pairs_path: Path, out: Path, base_url: str, model: str, every: int) -> None:
    """Ask a server for an answer to every n-th query, and write it as the rejected side of a policy pair."""
    import openai

    client = openai.OpenAI(base_url=base_url, max_retries=2, timeout=300)
    chosen = list(enumerate(read_pairs(pairs_path)))[::every]

    def ask(numbered: tuple[int, Pair]) -> str:
        seed, pair = numbered
        answer = client.chat.completions.create(
            model=model,
            messages=cast(Any, pair.messages),  # the SDK wants one TypedDict a role
            temperature=0.7,
            top_p=0.95,
            max_tokens=200,
            seed=seed,
            extra_body={"repeat_penalty": 1.1},
        )
        text = answer.choices[0].message.content or ""
        return json.dumps({"chosen": _transcript(pair, pair.chosen), "rejected": _transcript(pair, text)})

    with ThreadPoolExecutor(4) as pool, out.open("w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in pool.map(ask, chosen))


def _transcript(pair: Pair, answer: str) -> str:
    names = {"user": "Human", "assistant": "Assistant"}
    turns = [*((names[m["role"]], m["content"]) for m in pair.messages), ("Assistant", answer)]
    return "".join(f"\n\n{name}: {text}" for name, text in turns)
