"""Which word of a text a token belongs to. Pure: sees text and character offsets, never ids or tokenizers.

A word is a run of word characters, with apostrophes inside it, a run of white space, or a run of anything else. These are
not the tokenizer's own words: Llama 2's family splits nothing beforehand, so all of a text would be one word.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from functools import cache
from itertools import chain

import numpy as np
import numpy.typing as npt

_SPACE, _WORD, _OTHER = 0, 1, 2
_APOSTROPHES = 0x27, 0x2019


def token_words(text: str, start: int, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """The number, from 1, of the word of text[start:] to which each token belongs: that of its first character that isn't
    white space, or of its first character when all of it is.

    offsets: start and end of each token, in characters of `text`, as tokenizers give them; none before `start`.

    >>> token_words("> it's so", 2, [(2, 4), (4, 6), (6, 9)])
    [1, 1, 3]
    """
    if start >= len(text):
        return [0] * len(offsets)
    characters = np.frombuffer(text[start:].encode("utf-32-le"), np.uint32)
    kinds = _kinds()[characters]
    apostrophe = (characters == _APOSTROPHES[0]) | (characters == _APOSTROPHES[1])
    kinds[1:-1][apostrophe[1:-1] & (kinds[:-2] == _WORD) & (kinds[2:] == _WORD)] = _WORD
    number = np.concatenate([[1], 1 + np.cumsum(kinds[1:] != kinds[:-1])])
    # By way of an iterator: numpy takes three times as long to look into each tuple.
    flat = np.fromiter(chain.from_iterable(offsets), np.int64, 2 * len(offsets)) - start
    first = np.minimum(flat[::2], len(characters) - 1)
    last = np.maximum(flat[1::2] - 1, first)
    # A token that begins in white space belongs to the word behind it, if it reaches it.
    reaches = (kinds[first] == _SPACE) & (number[last] > number[first])
    words: list[int] = (number[first] + reaches).tolist()
    return words


@cache
def _kinds() -> npt.NDArray[np.uint8]:
    """The kind of each code point, as `re` sees it."""
    characters = "".join(map(chr, range(sys.maxunicode + 1)))
    kinds = np.full(len(characters), _OTHER, np.uint8)
    for kind, pattern in ((_SPACE, r"\s+"), (_WORD, r"\w+")):
        for run in re.finditer(pattern, characters):
            kinds[run.start() : run.end()] = kind
    return kinds
