"""Token signals: what any pair must satisfy, and a few pairs worked out by hand."""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from pipeline.labels import TokenSignals, token_signals

EOS = 2
KEEP, INSERT, SUBSTITUTE, DELETE = 0, 1, 2, 3
OFFICIAL = os.environ.get("FIGA_OFFICIAL")

# Few distinct tokens, so that optimal alignments are rarely unique.
answers = st.lists(st.integers(3, 7), max_size=14).map(lambda ids: [*ids, EOS])
pairs = st.tuples(answers, answers)


@st.composite
def pairs_with_words(draw: st.DrawFn) -> tuple[list[int], list[int], list[int], list[int]]:
    """Two answers; words are runs of one to three tokens, and EOS is a word of its own."""

    def words(length: int) -> list[int]:
        steps = draw(st.lists(st.booleans(), min_size=length - 1, max_size=length - 1))
        inner = list(itertools.accumulate(steps, initial=0))[: length - 1]
        return [*inner, max(inner, default=-1) + 1]

    initial, revised = draw(pairs)
    return initial, revised, words(len(initial)), words(len(revised))


def with_words(case: tuple[list[int], ...], **options: Any) -> TokenSignals:
    initial, revised, initial_words, revised_words = case
    return token_signals(initial, revised, initial_words=initial_words, revised_words=revised_words, **options)


def rebuilt(initial: list[int], revised: list[int], signals: TokenSignals) -> list[int]:
    """Ỹ from Ŷ's kept tokens, and from Ỹ only the tokens that were put in."""
    kept = (token for token, op in zip(initial, signals.initial_ops, strict=True) if op == KEEP)
    return [next(kept) if op == KEEP else token for token, op in zip(revised, signals.revised_ops, strict=True)]


@given(pairs)
def test_operations_turn_the_initial_answer_into_the_revised_one(pair: tuple[list[int], list[int]]) -> None:
    initial, revised = pair
    s = token_signals(initial, revised)
    assert rebuilt(initial, revised, s) == revised
    kept = [token for token, op in zip(initial, s.initial_ops, strict=True) if op == KEEP]
    assert kept == [token for token, op in zip(revised, s.revised_ops, strict=True) if op == KEEP]
    assert set(s.initial_ops.tolist()) <= {KEEP, SUBSTITUTE, DELETE}
    assert set(s.revised_ops.tolist()) <= {KEEP, INSERT, SUBSTITUTE}
    assert (s.initial_ops == SUBSTITUTE).sum() == (s.revised_ops == SUBSTITUTE).sum()


@given(pairs)
def test_the_number_of_edits_is_the_distance(pair: tuple[list[int], list[int]]) -> None:
    s = token_signals(*pair)
    edits = (s.initial_ops == DELETE).sum() + (s.revised_ops != KEEP).sum()
    assert s.distance == edits == Levenshtein.distance(*pair)
    assert s.distance == token_signals(pair[1], pair[0]).distance
    assert s.normalized_distance == s.distance / max(map(len, pair))
    assert (s.distance == 0) == (pair[0] == pair[1])


@given(pairs, st.sampled_from([(1.0, 0.5, 0.0), (2.0, 0.25, 0.125), (0.0, 0.0, 1.0)]))
def test_weights_follow_the_operations(pair: tuple[list[int], list[int]], weights: tuple[float, float, float]) -> None:
    alpha, beta, gamma = weights
    s = token_signals(*pair, alpha=alpha, beta=beta, gamma=gamma, eos_id=EOS)
    assert s.revised_weights[:-1].tolist() == [gamma if op == KEEP else alpha for op in s.revised_ops[:-1]]
    assert s.initial_weights[:-1].tolist() == [0 if op == KEEP else -beta for op in s.initial_ops[:-1]]
    assert (s.revised_weights[-1], s.initial_weights[-1]) == (alpha, 0)


@given(pairs_with_words(), st.sampled_from(["levenshtein", "bag_of_words", "reward_weighted", "constant"]))
def test_shapes_types_and_bytes(case: tuple[list[int], ...], signal: Any) -> None:
    for granularity in ("token", "word", "phrase"):
        s = with_words(case, signal=signal, granularity=granularity, reward_gain=-1.5, beta=0.0, gamma=0.0)
        assert len(s.initial_weights) == len(s.initial_ops) == len(case[0])
        assert len(s.revised_weights) == len(s.revised_ops) == len(case[1])
        for weights, ops in ((s.initial_weights, s.initial_ops), (s.revised_weights, s.revised_ops)):
            assert (weights.dtype, ops.dtype) == (np.float32, np.int8)
            # −0.0 equals 0.0, but its bytes don't.
            assert not np.signbit(weights[weights == 0]).any()


@given(pairs)
def test_arrays_and_lists_of_ids_give_the_same(pair: tuple[list[int], list[int]]) -> None:
    ours = token_signals(*pair)
    # The offsets bring the ids to where characters are surrogates, and beyond the last character.
    for dtype, offset in ((np.int32, 0), (np.int64, 0), (np.int32, 0xD7FE), (np.int32, sys.maxunicode - 0x802)):
        other = token_signals(np.array(pair[0], dtype) + offset, np.array(pair[1], dtype) + offset)
        assert other.distance == ours.distance
        for name in ("initial_ops", "revised_ops", "initial_weights", "revised_weights"):
            assert getattr(other, name).tobytes() == getattr(ours, name).tobytes()


@given(pairs_with_words())
def test_a_touched_word_is_edited_whole(case: tuple[list[int], ...]) -> None:
    initial, revised, initial_words, revised_words = case
    token, word = with_words(case), with_words(case, granularity="word")
    assert word.distance == token.distance
    for fine, coarse, words in (
        (token.initial_ops, word.initial_ops, initial_words),
        (token.revised_ops, word.revised_ops, revised_words),
    ):
        assert (coarse[fine != KEEP] == fine[fine != KEEP]).all()
        for index in set(words):
            assert len({op == KEEP for op, w in zip(coarse, words, strict=True) if w == index}) == 1
    # What is still kept is kept on both sides, in the same order.
    assert rebuilt(initial, revised, word) == revised
    assert (word.initial_ops == KEEP).sum() == (word.revised_ops == KEEP).sum()


@given(pairs_with_words(), st.integers(0, 4))
def test_phrases_join_near_words_and_nothing_else(case: tuple[list[int], ...], gap: int) -> None:
    word, phrase = with_words(case, granularity="word"), with_words(case, granularity="phrase", phrase_gap=gap)
    for narrow, wide in ((word.initial_ops, phrase.initial_ops), (word.revised_ops, phrase.revised_ops)):
        assert (wide[narrow != KEEP] != KEEP).all()
        if gap == 0:
            assert (wide == narrow).all()
    assert rebuilt(case[0], case[1], phrase) == case[1]
    # The EOS is kept by every alignment, and lies between no two edits.
    assert phrase.revised_ops[-1] == phrase.initial_ops[-1] == KEEP


@given(pairs)
def test_bag_of_words_marks_only_edited_tokens(pair: tuple[list[int], list[int]]) -> None:
    token, bag = token_signals(*pair), token_signals(*pair, signal="bag_of_words")
    assert (token.revised_weights[bag.revised_weights == 1] == 1).all()
    assert (token.initial_weights[bag.initial_weights != 0] == -0.5).all()
    only_revised = [token not in pair[0] for token in pair[1][:-1]]
    assert (bag.revised_weights[:-1] == 1).tolist() == only_revised


@given(pairs_with_words())
def test_bag_of_words_marks_whole_words_and_phrases(case: tuple[list[int], ...]) -> None:
    token = with_words(case, signal="bag_of_words")
    word, phrase = (with_words(case, signal="bag_of_words", granularity=g) for g in ("word", "phrase"))
    everything = with_words(case, granularity="phrase")
    for side, words in (("initial", case[2]), ("revised", case[3])):
        hit, whole, wide, edited = (getattr(s, f"{side}_weights")[:-1] != 0 for s in (token, word, phrase, everything))
        assert (whole[hit]).all() and (wide[whole]).all() and (edited[wide]).all()
        touched = {number for number, there in zip(words[:-1], hit, strict=True) if there}
        assert whole.tolist() == [number in touched for number in words[:-1]]
        # A phrase is marked as a whole or not at all.
        ops = getattr(phrase, f"{side}_ops")[:-1]
        joined = (ops[1:] != KEEP) & (ops[:-1] != KEEP)
        assert (wide[1:][joined] == wide[:-1][joined]).all()


@given(pairs, st.floats(-4, 4, width=32))
def test_reward_weighted_scales_the_same_mask(pair: tuple[list[int], list[int]], gain: float) -> None:
    plain = token_signals(*pair, gamma=0.25)
    scaled = token_signals(*pair, gamma=0.25, signal="reward_weighted", reward_gain=gain)
    assert np.array_equal(scaled.revised_weights, plain.revised_weights * np.float32(gain))
    assert np.array_equal(scaled.initial_weights, plain.initial_weights * np.float32(gain))


@given(pairs)
def test_constant_is_supervised_fine_tuning_on_the_revised_answer(pair: tuple[list[int], list[int]]) -> None:
    s = token_signals(*pair, signal="constant", gamma=0.25)
    assert (s.revised_weights == 1).all()
    assert not s.initial_weights.any()


def test_by_hand() -> None:
    #               a  b  c  d                  a  x  c  e  d
    s = token_signals([3, 4, 5, 6, EOS], [3, 9, 5, 8, 6, EOS], alpha=1, beta=0.5, gamma=0.25, eos_id=EOS)
    assert s.initial_ops.tolist() == [0, 2, 0, 0, 0]
    assert s.revised_ops.tolist() == [0, 2, 0, 1, 0, 0]
    assert s.initial_weights.tolist() == [0, -0.5, 0, 0, 0]
    assert s.revised_weights.tolist() == [0.25, 1, 0.25, 1, 0.25, 1]
    assert s.normalized_distance == 2 / 6


def test_by_hand_word_and_phrase() -> None:
    # "un|happy cat ran fast" → "very|happy cat sat fast": one word of two tokens, then words of one.
    case = ([10, 11, 12, 13, 14, EOS], [20, 11, 12, 23, 14, EOS], [0, 0, 1, 2, 3, 4], [0, 0, 1, 2, 3, 4])
    assert with_words(case).revised_ops.tolist() == [2, 0, 0, 2, 0, 0]
    assert with_words(case, granularity="word").revised_ops.tolist() == [2, 2, 0, 2, 0, 0]
    # "cat" lies between two edits and is joined; "fast" lies between an edit and the end and isn't.
    assert with_words(case, granularity="phrase").revised_ops.tolist() == [2, 2, 2, 2, 0, 0]
    assert with_words(case, granularity="phrase").initial_ops.tolist() == [2, 2, 2, 2, 0, 0]


def test_a_word_split_otherwise_on_the_other_side_spreads() -> None:
    # Ŷ's word 1 reaches into the kept part of Ỹ's word 0, which was not edited itself.
    case = ([3, 4, 5, EOS], [3, 4, 9, EOS], [0, 1, 1, 2], [0, 0, 1, 2])
    s = with_words(case, granularity="word")
    assert s.revised_ops.tolist() == [2, 2, 2, 0]
    assert s.initial_ops.tolist() == [2, 2, 2, 0]


def test_an_answer_that_lost_its_eos_has_no_eos_weight() -> None:
    s = token_signals([3, 4], [3, 4], eos_id=EOS)
    assert (s.revised_weights.tolist(), s.initial_weights.tolist()) == ([0, 0], [0, 0])
    assert token_signals([3, 4], [3, 4]).revised_weights.tolist() == [0, 1]


def test_the_initial_answers_eos_is_never_bad_even_where_it_is_not_kept() -> None:
    s = token_signals([3, EOS], [3, 4], eos_id=EOS)
    assert s.initial_ops.tolist() == [0, 2]
    assert s.initial_weights.tolist() == [0, 0]
    assert s.revised_weights.tolist() == [0, 1]


@given(
    pairs, st.sampled_from(["levenshtein", "bag_of_words", "constant", "reward_weighted"]), st.floats(0, 4, width=32)
)
def test_the_revised_answers_eos_takes_its_own_weight(
    pair: tuple[list[int], list[int]], signal: Any, eos: float
) -> None:
    plain = token_signals(*pair, eos_id=EOS, signal=signal, reward_gain=2.0)
    ours = token_signals(*pair, eos_id=EOS, signal=signal, reward_gain=2.0, eos_weight=eos)
    assert ours.revised_weights[-1] == np.float32(eos) * (2 if signal == "reward_weighted" else 1)
    assert np.array_equal(ours.revised_weights[:-1], plain.revised_weights[:-1])
    assert np.array_equal(ours.initial_weights, plain.initial_weights) and ours.initial_weights[-1] == 0


def test_two_empty_answers() -> None:
    s = token_signals([], [])
    assert (s.distance, s.normalized_distance, len(s.revised_weights)) == (0, 0.0, 0)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"signal": "levenstein"}, "levenstein"),
        ({"granularity": "sentence"}, "sentence"),
        ({"granularity": "word"}, "initial_words"),
        ({"granularity": "phrase", "initial_words": [0, 1]}, "revised_words"),
        ({"granularity": "word", "initial_words": [0], "revised_words": [0, 1]}, "as long as"),
        ({"signal": "reward_weighted"}, "reward_gain"),
    ],
)
def test_bad_arguments_are_value_errors_that_name_them(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        token_signals([3, EOS], [4, EOS], **options)


@pytest.mark.skipif(not OFFICIAL, reason="FIGA_OFFICIAL does not name the authors' figa_official.json")
def test_the_authors_masks() -> None:
    alpha, beta = 1.0, 0.5
    rows = 0
    for batch in json.loads(Path(str(OFFICIAL)).read_text("utf-8")):
        labels, masks = np.array(batch["labels"]), np.array(batch["official_mask"])
        for revised, initial, good, bad in zip(labels[::2], labels[1::2], masks[::2], masks[1::2], strict=True):
            of_revised, of_initial = revised != -100, initial != -100
            s = token_signals(initial[of_initial].tolist(), revised[of_revised].tolist(), alpha=alpha, beta=beta)
            assert s.revised_weights.tolist() == np.where(good[of_revised] == 1, alpha, 0).tolist()
            assert s.initial_weights.tolist() == np.where(bad[of_initial] == -1, -beta, 0).tolist()
            # Outside the response there is no signal, and each response ends with its EOS.
            assert not good[~of_revised].any()
            assert not bad[~of_initial].any()
            assert good[of_revised][-1] == bad[of_initial][-1] == 1
            rows += 2
    assert rows >= 48
