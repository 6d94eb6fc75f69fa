"""Words of tokens, against the plain reading of what a word is."""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.labels.tokenizer import token_words

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]+|\s+")
texts = st.text(st.sampled_from("ab_ '’\n\t\u00a0\x1c.,!é\u0301漢😀\u200d١"), max_size=14)


def plainly(text: str, start: int, offsets: list[tuple[int, int]]) -> list[int]:
    begins = [match.start() for match in _WORD.finditer(text, start)]
    firsts = [begin + len(text[begin:end]) - len(text[begin:end].lstrip()) for begin, end in offsets]
    blank = [not text[begin:end].strip() for begin, end in offsets]
    return [bisect_right(begins, b if none else f) for (b, _), f, none in zip(offsets, firsts, blank, strict=True)]


@settings(deadline=None)  # the first call makes a table
@given(texts, st.data())
def test_a_token_belongs_to_the_word_of_its_first_visible_character(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    cuts = sorted(data.draw(st.lists(st.integers(start, len(text)), max_size=8)))
    # Some tokenizers give several tokens the place of one character, and some tokens no place at all.
    offsets = [pair for pair in pairwise(cuts) for _ in range(data.draw(st.integers(1, 2)))]
    assert token_words(text, start, offsets) == plainly(text, start, offsets)


def test_apostrophes_join_only_inside_a_word() -> None:
    text = "'it's' o’clock"
    single = [(place, place + 1) for place in range(len(text))]
    assert token_words(text, 0, single) == [1, 2, 2, 2, 2, 3, 4, 5, 5, 5, 5, 5, 5, 5]
    assert token_words("", 0, [(0, 0)]) == [0]
