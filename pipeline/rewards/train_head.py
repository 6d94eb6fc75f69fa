"""Train the embedded reward's head, and say how good it is on pairs that it has not seen.

    python -m pipeline.rewards.train_head --pairs harmless.jsonl.gz [--policy-pairs policy.jsonl] [--out reward-head.npz]
    python -m pipeline.rewards.train_head sample --pairs harmless.jsonl.gz --base-url http://127.0.0.1:8080/v1 --out policy.jsonl

Both files hold hh-rlhf transcripts, {"chosen", "rejected"} a line. The head is a Bradley–Terry model, R(chosen) > R(rejected),
on the features' differences, fitted on three kinds of pairs:

    pairs     people's preferences                                      all features
    policy    reference against a sampled answer, cut to equal length   only what may judge quality (see _STYLE)
    spoiled   a text against itself, damaged: looped, off-topic …       only what may judge quality

Letters and words are learned from `pairs` alone, where both replies come from one family of writers; learned from `policy`
they would tell who wrote a text. The same input gives the same bytes: fixed iterations, sequential sums, seeded damage.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError, RowReject
from pipeline.rewards import features
from pipeline.rewards.embedded import FORMAT, EmbeddedReward, save_head
from pipeline.sources import hh_rlhf

Floats = npt.NDArray[np.float64]


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


_DAMAGE: tuple[Callable[[random.Random, list[str], Pair], str], ...] = (_loop, _cut, _thin, _parrot)


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


class Design(NamedTuple):
    """Feature differences, chosen minus rejected, of n pairs: a dense block and a sparse one in coordinate form."""

    dense: Floats  # (n, len(features.NAMES))
    rows: npt.NDArray[np.int64]  # (nnz,)
    columns: npt.NDArray[np.int64]  # (nnz,)
    values: Floats  # (nnz,)
    weights: Floats  # (n,) of each pair in the loss

    def take(self, keep: npt.NDArray[np.bool_]) -> Design:
        """The pairs where `keep` (n,) is true."""
        inside, place = keep[self.rows], np.cumsum(keep) - 1
        return Design(
            self.dense[keep], place[self.rows[inside]], self.columns[inside], self.values[inside], self.weights[keep]
        )


def design(pairs: Sequence[Pair], weight: float, *, quality_only: bool) -> Design:
    """The pairs' design; with `quality_only`, columns that could tell writers apart are zero."""
    dense = np.array([features.dense(p.messages, p.chosen) - features.dense(p.messages, p.rejected) for p in pairs])
    rows, columns, values = [], [], []
    if quality_only:
        dense[:, [name not in QUALITY for name in features.NAMES]] = 0.0
    else:
        for row, pair in enumerate(pairs):
            for sign, text in ((1.0, pair.chosen), (-1.0, pair.rejected)):
                buckets, each = features.hashed(text)
                rows.append(np.full(len(buckets), row))
                columns.append(buckets)
                values.append(np.full(len(buckets), sign * each))
    flat = [np.concatenate(parts) if parts else np.zeros(0) for parts in (rows, columns, values)]
    return Design(dense, flat[0].astype(np.int64), flat[1].astype(np.int64), flat[2], np.full(len(pairs), weight))


def join(parts: Sequence[Design]) -> Design:
    """Several designs as one, in order."""
    starts = np.cumsum([0, *(len(part.dense) for part in parts)])
    rows = np.concatenate([part.rows + start for part, start in zip(parts, starts, strict=False)])
    other = ((p.dense, p.columns, p.values, p.weights) for p in parts)
    dense, columns, values, weights = (np.concatenate(block) for block in zip(*other, strict=True))
    return Design(dense, rows, columns, values, weights)


def predict(data: Design, head: Floats) -> Floats:
    """R(chosen) - R(rejected), shape (n,)."""
    d, n = data.dense.shape[1], len(data.dense)
    words = np.bincount(data.rows, weights=data.values * head[d:][data.columns], minlength=n)
    return np.asarray(data.dense @ head[:d] + words)
