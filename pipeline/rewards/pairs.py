"""Pairs for the reward head: read from transcripts, cut to equal length, damaged on purpose, or sampled from a server."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import PolicySettings
from pipeline.errors import InputError, RowReject
from pipeline.models.local import catalog
from pipeline.models.local.download import fetch
from pipeline.models.local.server import serve
from pipeline.sources.adapters import hh_rlhf


class Pair(NamedTuple):
    """Two answers to the same messages; the first is the better one."""

    messages: list[dict[str, str]]
    chosen: str
    rejected: str


def read_pairs(path: Path) -> list[Pair]:
    """The usable pairs of a transcript file, in its order. Raises InputError when there is none, or a line is not JSON."""
    pairs = []
    opener = gzip.open if path.suffix == ".gz" else open
    if not path.is_file():
        raise InputError(f"{path}: no such file")
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


# ---- the policy ---------------------------------------------------------------------------------------------------------

# Long conversations take long to read, and short answers are enough: pairs are cut to equal length.
_MOST_CHARS, _ANSWER_TOKENS = 1000, 96


def policy_pairs(pairs: Sequence[Pair], path: Path) -> list[Pair]:
    """The reference against the policy's answer, where `path`, which `sample` wrote, has one. Raises InputError."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            answers = [json.loads(line) for line in lines]
        return [pairs[each["pair"]]._replace(rejected=str(each["answer"])) for each in answers if each["answer"]]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(
            f"{path}: expected answers to these pairs, as `train_head sample` writes them: {error!r}"
        ) from error


def sample(pairs: Sequence[Pair], out: Path, rows: str) -> None:
    """Ask the embedded policy for answers to the pairs numbered `rows` ("0:9,20:"), as a run does, and write them to `out`.

    One call at a time, one thread, no cache, a seed a pair: on one machine the same answers whenever they are asked for.
    """
    import openai

    settings = PolicySettings()
    model = catalog.get(ModelSpec.parse(settings.model).name)
    server = serve(fetch(model), context=model.slot_context)
    client = openai.OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0, timeout=600)
    ranges = [slice(*(int(bound) if bound else None for bound in part.split(":"))) for part in rows.split(",")]
    with out.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        for number in [number for each in ranges for number in range(len(pairs))[each]]:
            messages = [{"role": "system", "content": model.system}, *pairs[number].messages]
            if sum(len(message["content"]) for message in pairs[number].messages) <= _MOST_CHARS:
                given = client.chat.completions.create(
                    model=model.name,
                    messages=cast(Any, messages),  # the SDK wants one TypedDict a role
                    temperature=settings.temperature,
                    max_tokens=_ANSWER_TOKENS,
                    seed=number,
                    extra_body={**model.defaults, "cache_prompt": False},
                )
                file.write(answer_line(number, given.choices[0].message.content or ""))


def answer_line(number: int, answer: str) -> bytes:
    """A line of the file that `policy_pairs` reads."""
    return json.dumps({"pair": number, "answer": answer.strip()}).encode() + b"\n"
