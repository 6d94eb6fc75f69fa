"""Token signals: which tokens of a pair a trainer should push up or down. Pure: sees ids, never text, files or tokenizers.

FIGA (Guo et al., ICLR 2024, arXiv 2311.04072, §3.3). The response tokens of the initial answer Ŷ are aligned with those
of the revised answer Ỹ by Levenshtein distance:

    token                                   operation   weight
    in Ỹ, inserted or substituted in        1 or 2      α
    in Ỹ, kept                              0           γ
    in Ŷ, deleted or substituted out        3 or 2      −β
    in Ŷ, kept                              0           0
    the EOS that ends Ỹ / Ŷ                 its own     α (or eos_weight) / 0

Optimal alignments are not unique, so the one that `rapidfuzz.distance.Levenshtein` computes is part of the format, and its
version is pinned and recorded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein

from pipeline.config.settings import Granularity, Signal

KEEP, INSERT, SUBSTITUTE, DELETE = 0, 1, 2, 3
PROMPT = -1
Ids = Sequence[int] | npt.NDArray[np.integer]
Integers = npt.NDArray[np.int64]
Ops = npt.NDArray[np.int8]
Mask = npt.NDArray[np.bool_]
Weights = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TokenSignals:
    """Operations (int8) and signed weights (float32) of the response tokens of one pair, one per id.

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
    initial_words: Ids | None = None,
    revised_words: Ids | None = None,
    reward_gain: float | None = None,
) -> TokenSignals:
    """Align two answers and weigh their tokens.

    initial_ids, revised_ids: response ids with the EOS that ends each. eos_id: that EOS; None: each answer's last token.
    eos_weight: of Ỹ's EOS, by default α; that of Ŷ's is always 0. initial_words, revised_words: for granularity word and
    phrase, the number of each token's word. phrase_gap: edits with at most so many kept words between them join.
    reward_gain: R(Ỹ) − R(Ŷ), for signal reward_weighted. Raises ValueError for what is unknown, missing or of other length.

    >>> s = token_signals([5, 7, 2], [5, 8, 9, 2], eos_id=2)
    >>> s.revised_ops.tolist(), s.revised_weights.tolist(), s.distance
    ([0, 1, 2, 0], [0.0, 1.0, 1.0, 1.0], 2)
    """
    if signal == "reward_weighted" and reward_gain is None:
        raise ValueError("signal 'reward_weighted' needs reward_gain")
    initial, revised = np.asarray(initial_ids, np.int64), np.asarray(revised_ids, np.int64)
    initial_ops, revised_ops, distance = _align(initial, revised)
    words = _units(granularity, initial, initial_words), _units(granularity, revised, revised_words)
    units = _widen(granularity, (initial_ops, revised_ops), words, phrase_gap)
    bad = _marked(signal, initial, initial_ops, units[0], revised, constant=False)
    good = _marked(signal, revised, revised_ops, units[1], initial, constant=True)
    gain = reward_gain if signal == "reward_weighted" and reward_gain is not None else 1.0
    initial_weights = _weights(bad, -beta, 0.0, _eos(initial, eos_id), 0.0, gain)
    eos = alpha if eos_weight is None else eos_weight
    revised_weights = _weights(good, alpha, gamma, _eos(revised, eos_id), eos, gain)
    return TokenSignals(initial_weights, revised_weights, initial_ops, revised_ops, distance)


def _eos(ids: Integers, eos_id: int | None) -> slice:
    """The place of the EOS that ends a response: its last token; empty when that is another one than eos_id."""
    ended = len(ids) and (eos_id is None or ids[-1] == eos_id)
    return slice(-1, None) if ended else slice(0)


def _align(initial: Integers, revised: Integers) -> tuple[Ops, Ops, int]:
    """The operation of each token, and the number of edits."""
    initial_ops, revised_ops = np.zeros(len(initial), np.int8), np.zeros(len(revised), np.int8)
    edits: Any = Levenshtein.editops(initial.tolist(), revised.tolist()).as_list()
    for tag, i, j in edits:
        if tag == "replace":
            initial_ops[i] = revised_ops[j] = SUBSTITUTE
        elif tag == "delete":
            initial_ops[i] = DELETE
        else:
            revised_ops[j] = INSERT
    return initial_ops, revised_ops, len(edits)


def _units(granularity: Granularity, ids: Integers, words: Ids | None) -> Integers:
    """The number of the unit to which each token belongs: its own, or that of its word."""
    if granularity not in get_args(Granularity):
        raise ValueError(f"granularity must be one of {get_args(Granularity)}, got {granularity!r}")
    if granularity == "token":
        return np.arange(len(ids))
    if words is None:
        raise ValueError("granularities word and phrase need initial_words and revised_words")
    if len(words) != len(ids):
        raise ValueError("initial_words and revised_words must be as long as the ids")
    return np.asarray(words, np.int64)


def _widen(
    granularity: Granularity, ops: tuple[Ops, Ops], units: tuple[Integers, Integers], gap: int
) -> tuple[Integers, Integers]:
    """Widen the edits of both sides to words or phrases, in place; returns the units after that."""
    if granularity != "token":
        _widen_to_words(*ops, *units)
    if granularity == "phrase":
        _join_phrases(*ops, units[1], gap)
        return np.cumsum(ops[0] == KEEP), np.cumsum(ops[1] == KEEP)
    return units


def _marked(signal: Signal, ids: Integers, ops: Ops, units: Integers, other_ids: Integers, *, constant: bool) -> Mask:
    """The tokens of one side that get the weight of an edit. constant: whether all do, for the signal of that name."""
    if signal not in get_args(Signal):
        raise ValueError(f"signal must be one of {get_args(Signal)}, got {signal!r}")
    if signal == "constant":
        return np.full(len(ids), constant)
    edited: Mask = ops != KEEP
    if signal == "bag_of_words":
        # The edited tokens, words or phrases with a token that the other answer doesn't have.
        edited &= np.isin(units, units[~np.isin(ids, other_ids)])
    return edited


def _kept_pairs(initial_ops: Ops, revised_ops: Ops) -> tuple[Integers, Integers]:
    """Positions of the kept tokens in both sequences: the k-th of one is the k-th of the other."""
    return np.flatnonzero(initial_ops == KEEP), np.flatnonzero(revised_ops == KEEP)


def _widen_to_words(initial_ops: Ops, revised_ops: Ops, initial_words: Integers, revised_words: Integers) -> None:
    """Mark every word with an edit as edited: its kept tokens become substitutions, on both sides at once.

    A token marked on one side can belong to a word of the other side that was unedited, hence the loop.
    """
    while True:
        kept_i, kept_j = _kept_pairs(initial_ops, revised_ops)
        touched_i = np.isin(initial_words[kept_i], initial_words[initial_ops != KEEP])
        touched_j = np.isin(revised_words[kept_j], revised_words[revised_ops != KEEP])
        touched = touched_i | touched_j
        if not touched.any():
            return
        initial_ops[kept_i[touched]] = SUBSTITUTE
        revised_ops[kept_j[touched]] = SUBSTITUTE


def _join_phrases(initial_ops: Ops, revised_ops: Ops, revised_words: Integers, gap: int) -> None:
    """Join edits with at most `gap` kept words between them: those words' tokens become substitutions."""
    kept_i, kept_j = _kept_pairs(initial_ops, revised_ops)
    if not len(kept_i):
        return
    # A run of kept pairs ends where either side skips an edited token.
    breaks = np.flatnonzero((np.diff(kept_i) > 1) | (np.diff(kept_j) > 1)) + 1
    for i, j in zip(np.split(kept_i, breaks), np.split(kept_j, breaks), strict=True):
        at_start = i[0] == 0 and j[0] == 0
        at_end = i[-1] == len(initial_ops) - 1 and j[-1] == len(revised_ops) - 1
        if not at_start and not at_end and len(np.unique(revised_words[j])) <= gap:
            initial_ops[i] = SUBSTITUTE
            revised_ops[j] = SUBSTITUTE


def _weights(marked: Mask, weight: float, other: float, eos: slice, eos_weight: float, gain: float) -> Weights:
    weights = np.where(marked, np.float32(weight), np.float32(other))
    weights[eos] = eos_weight
    # + 0 turns the −0.0 of β = 0 or of a negative gain into 0.0, so that equal weights are equal bytes.
    return weights * np.float32(gain) + np.float32(0)
