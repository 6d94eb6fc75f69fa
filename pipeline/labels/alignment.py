"""Token signals: which tokens of a pair a trainer should push up or down. Pure: sees ids, never text, files or tokenizers.

FIGA (Guo et al., ICLR 2024, arXiv 2311.04072, §3.3). The response tokens of the initial answer Ŷ are aligned with those
of the revised answer Ỹ by Levenshtein distance:

    token                                   operation   weight
    in Ỹ, inserted or substituted in        1 or 2      α
    in Ỹ, kept                              0           γ
    in Ŷ, deleted or substituted out        3 or 2      −β
    in Ŷ, kept                              0           0
    the EOS that ends Ỹ / Ŷ                 its own     α (or eos_weight) / 0

Optimal alignments are not unique, so the one that `rapidfuzz.distance.Levenshtein` finds is part of the format, and its
version is pinned and recorded.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein

from pipeline.config.settings import Granularity, Signal

KEEP, INSERT, SUBSTITUTE, DELETE = 0, 1, 2, 3
PROMPT = -1
Ops = npt.NDArray[np.int8]
Weights = npt.NDArray[np.float32]
Words = npt.NDArray[np.int64]
Ids = Sequence[int] | npt.NDArray[np.integer]
_FIRST_SURROGATE, _SURROGATES = np.uint32(0xD800), np.uint32(0x800)
_CHARACTERS = sys.maxunicode + 1 - 0x800
_SIGNALS, _GRANULARITIES = get_args(Signal), get_args(Granularity)


@dataclass(frozen=True, slots=True)
class TokenSignals:
    """Operations and signed weights of the response tokens of one pair, or of many, one behind the other.

    initial_*: shape (len(initial_ids),); revised_*: shape (len(revised_ids),); ops int8, weights float32.
    distance: number of single-token edits between the two, before any granularity widens them.
    """

    initial_weights: Weights
    revised_weights: Weights
    initial_ops: Ops
    revised_ops: Ops
    distance: int

    @property
    def normalized_distance(self) -> float:
        """edits / max(|Ŷ|, |Ỹ|), in [0, 1]."""
        longest = max(len(self.initial_ops), len(self.revised_ops))
        return self.distance / longest if longest else 0.0


class Responses(NamedTuple):
    """Many responses as one array: row i is ids[offsets[i]:offsets[i + 1]]. words: of each token, where they are needed."""

    ids: npt.NDArray[np.integer]
    offsets: npt.NDArray[np.integer]
    words: Words | None = None

    def places(self) -> list[slice]:
        bounds = self.offsets.tolist()
        return [slice(start, end) for start, end in pairwise(bounds)]

    def ends(self, eos_id: int | None) -> npt.NDArray[np.integer]:
        """Where the responses' last tokens are that end them: all of them, or those that are the EOS."""
        last = self.offsets[1:][self.offsets[1:] > self.offsets[:-1]] - 1
        return last if eos_id is None else last[self.ids[last] == eos_id]


def _one(ids: Ids, words: Sequence[int] | None) -> Responses:
    ids = ids if isinstance(ids, np.ndarray) else np.array(ids, np.int64)
    return Responses(ids, np.array([0, len(ids)]), None if words is None else np.asarray(words, np.int64))


def token_signals(
    initial_ids: Ids,
    revised_ids: Ids,
    *,
    alpha: float = 1.0,
    beta: float = 0.5,
    gamma: float = 0.0,
    eos_id: int | None = None,
    eos_weight: float | None = None,
    signal: Signal = "levenshtein",
    granularity: Granularity = "token",
    phrase_gap: int = 1,
    initial_words: Sequence[int] | None = None,
    revised_words: Sequence[int] | None = None,
    reward_gain: float | None = None,
) -> TokenSignals:
    """Align two answers and weigh their tokens.

    initial_ids, revised_ids: response ids, the EOS that ends each included. eos_id: that EOS; None takes each answer's
    last token to be it. eos_weight: weight of Ỹ's EOS, α unless given; that of Ŷ's is always 0. initial_words,
    revised_words: for granularity word and phrase, the index of the word to which each token belongs, same lengths as the
    ids. phrase_gap: edits that are at most so many kept words apart join.
    reward_gain: R(Ỹ) − R(Ŷ), for signal reward_weighted.

    >>> s = token_signals([5, 7, 2], [5, 8, 9, 2], eos_id=2)
    >>> s.revised_ops.tolist(), s.revised_weights.tolist()
    ([0, 1, 2, 0], [0.0, 1.0, 1.0, 1.0])
    >>> s.initial_ops.tolist(), s.initial_weights.tolist(), s.distance
    ([0, 2, 0], [0.0, -0.5, 0.0], 2)

    Raises ValueError for an unknown signal or granularity, or when words or reward_gain are missing for one that needs
    them.
    """
    return pairs_signals(
        _one(initial_ids, initial_words),
        _one(revised_ids, revised_words),
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        eos_id=eos_id,
        eos_weight=eos_weight,
        signal=signal,
        granularity=granularity,
        phrase_gap=phrase_gap,
        reward_gains=None if reward_gain is None else np.array([reward_gain]),
    )


def pairs_signals(
    initial: Responses,
    revised: Responses,
    *,
    alpha: float,
    beta: float,
    gamma: float,
    eos_id: int | None,
    eos_weight: float | None,
    signal: Signal,
    granularity: Granularity,
    phrase_gap: int,
    reward_gains: npt.NDArray[np.floating] | None,
) -> TokenSignals:
    """`token_signals` of many pairs at once, in a sixth of the time; reward_gains: one a pair."""
    if signal not in _SIGNALS:
        raise ValueError(f"signal must be one of {_SIGNALS}, got {signal!r}")
    if granularity not in _GRANULARITIES:
        raise ValueError(f"granularity must be one of {_GRANULARITIES}, got {granularity!r}")
    if signal == "reward_weighted" and reward_gains is None:
        raise ValueError("signal 'reward_weighted' needs reward_gain")
    places = list(zip(initial.places(), revised.places(), strict=True))
    initial_ops, revised_ops, distance = _align(initial, revised, places)
    if granularity != "token":
        _widen(initial, revised, initial_ops, revised_ops, places, phrase_gap if granularity == "phrase" else None)
    bad, good = initial_ops != KEEP, revised_ops != KEEP
    if signal == "bag_of_words":
        bad, good = _bags(initial, revised, bad, good, places, granularity)
    elif signal == "constant":
        bad, good = np.zeros_like(bad), np.ones_like(good)
    initial_weights = np.where(bad, np.float32(-beta), np.float32(0))
    revised_weights = np.where(good, np.float32(alpha), np.float32(gamma))
    revised_weights[revised.ends(eos_id)] = alpha if eos_weight is None else eos_weight
    initial_weights[initial.ends(eos_id)] = 0
    if signal == "reward_weighted" and reward_gains is not None:
        initial_weights *= np.repeat(reward_gains.astype(np.float32), np.diff(initial.offsets))
        revised_weights *= np.repeat(reward_gains.astype(np.float32), np.diff(revised.offsets))
    # + 0.0 turns the −0.0 of β = 0 or of a negative gain into 0.0, so that equal weights are equal bytes.
    zero = np.float32(0)
    return TokenSignals(initial_weights + zero, revised_weights + zero, initial_ops, revised_ops, distance)


def _align(initial: Responses, revised: Responses, places: Sequence[tuple[slice, slice]]) -> tuple[Ops, Ops, int]:
    texts = _comparable(initial.ids, revised.ids)
    # Single items are set several times faster in a bytearray than in an array.
    initial_ops, revised_ops = bytearray(len(initial.ids)), bytearray(len(revised.ids))
    distance = 0
    for mine, theirs in places:
        edits: Any = Levenshtein.editops(texts[0][mine], texts[1][theirs]).as_list()
        distance += len(edits)
        for tag, i, j in edits:
            if tag == "replace":
                initial_ops[mine.start + i] = revised_ops[theirs.start + j] = SUBSTITUTE
            elif tag == "delete":
                initial_ops[mine.start + i] = DELETE
            else:
                revised_ops[theirs.start + j] = INSERT
    return np.frombuffer(initial_ops, np.int8), np.frombuffer(revised_ops, np.int8), distance


def _comparable(*arrays: npt.NDArray[np.integer]) -> list[Any]:
    """The ids as rapidfuzz compares them fastest: a character each, the surrogates left out, where there are so many."""
    points = [ids.astype("<u4", copy=False) for ids in arrays]  # negative ones become too large
    if all(ids.itemsize <= 4 for ids in arrays):
        # There is no character of a surrogate's number, nor of one that is too large.
        with suppress(UnicodeDecodeError):
            return [ids.tobytes().decode("utf-32-le") for ids in points]
    largest = max(int(ids.max(initial=0)) for ids in points)
    if largest >= _CHARACTERS or any(ids.itemsize > 4 for ids in arrays):
        return [ids.tolist() for ids in arrays]
    if largest >= _FIRST_SURROGATE:
        points = [ids + _SURROGATES * (ids >= _FIRST_SURROGATE) for ids in points]
    return [ids.tobytes().decode("utf-32-le") for ids in points]


def _bags(
    initial: Responses,
    revised: Responses,
    bad: npt.NDArray[np.bool_],
    good: npt.NDArray[np.bool_],
    places: Sequence[tuple[slice, slice]],
    granularity: Granularity,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """The tokens that only their own side of a pair has, in whole units."""
    told = np.zeros_like(bad), np.zeros_like(good)
    for mine, theirs in places:
        for side, hits, edited, here, there in (
            (initial, told[0], bad, mine, revised.ids[theirs]),
            (revised, told[1], good, theirs, initial.ids[mine]),
        ):
            words = None if side.words is None else side.words[here]
            hits[here] = _whole(~np.isin(side.ids[here], there), edited[here], words, granularity)
    return told


def _whole(
    hits: npt.NDArray[np.bool_], edited: npt.NDArray[np.bool_], words: Words | None, granularity: Granularity
) -> npt.NDArray[np.bool_]:
    """The words, or the runs of edited tokens, that hold a hit. A token that only one side has is an edited one."""
    if granularity == "token":
        return hits
    units = words if granularity == "word" and words is not None else np.cumsum(~edited)
    return edited & np.isin(units, units[hits])


def _widen(
    initial: Responses,
    revised: Responses,
    initial_ops: Ops,
    revised_ops: Ops,
    places: Sequence[tuple[slice, slice]],
    gap: int | None,
) -> None:
    """Turn edits of tokens into edits of words, and with a gap of phrases, pair by pair. Raises ValueError."""
    if initial.words is None or revised.words is None:
        raise ValueError("granularities word and phrase need initial_words and revised_words")
    if initial.words.shape != initial_ops.shape or revised.words.shape != revised_ops.shape:
        raise ValueError("initial_words and revised_words must be as long as the ids")
    for mine, theirs in places:
        pair = initial_ops[mine], revised_ops[theirs], initial.words[mine], revised.words[theirs]
        _widen_to_words(*pair)
        if gap is not None:
            _join_phrases(*pair, gap=gap)


def _kept_pairs(initial_ops: Ops, revised_ops: Ops) -> tuple[Words, Words]:
    """Positions of the kept tokens in either sequence; the alignment is monotone, so the k-th of one is the k-th's twin."""
    return np.flatnonzero(initial_ops == KEEP), np.flatnonzero(revised_ops == KEEP)


def _widen_to_words(initial_ops: Ops, revised_ops: Ops, initial_words: Words, revised_words: Words) -> None:
    """An edit inside a word makes the whole word edited: its kept tokens become substitutions, on both sides at once.

    Marking one side can touch a word of the other side, hence the loop; it ends because each turn marks more tokens.
    """
    while True:
        kept_i, kept_j = _kept_pairs(initial_ops, revised_ops)
        touched_i = np.isin(initial_words[kept_i], initial_words[initial_ops != KEEP])
        touched_j = np.isin(revised_words[kept_j], revised_words[revised_ops != KEEP])
        spoiled = touched_i | touched_j
        if not spoiled.any():
            return
        initial_ops[kept_i[spoiled]] = SUBSTITUTE
        revised_ops[kept_j[spoiled]] = SUBSTITUTE


def _join_phrases(initial_ops: Ops, revised_ops: Ops, initial_words: Words, revised_words: Words, *, gap: int) -> None:
    """Edits with at most `gap` kept words between them become one phrase: those words' tokens become substitutions."""
    kept_i, kept_j = _kept_pairs(initial_ops, revised_ops)
    if not len(kept_i):
        return
    # A run of kept pairs ends where either side skips an edited token.
    breaks = np.flatnonzero((np.diff(kept_i) > 1) | (np.diff(kept_j) > 1)) + 1
    for run in np.split(np.arange(len(kept_i)), breaks):
        first, last = run[0], run[-1]
        starts = kept_i[first] == 0 and kept_j[first] == 0
        ends = kept_i[last] == len(initial_ops) - 1 and kept_j[last] == len(revised_ops) - 1
        if not starts and not ends and len(np.unique(revised_words[kept_j[run]])) <= gap:
            initial_ops[kept_i[run]] = SUBSTITUTE
            revised_ops[kept_j[run]] = SUBSTITUTE
