"""Which word of a text a token belongs to. Pure: sees text and character offsets, never ids or tokenizers.

A word is a run of word characters, with apostrophes inside it, a run of white space, or a run of anything else. These are
not the tokenizer's own words: the tokenizers of Llama 2's family don't split a text into words.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]+|\s+")


def token_words(text: str, start: int, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """The number, from 1, of the word of text[start:] to which each token belongs: that of its first character that isn't
    white space, or of its first character when all of it is white space.

    offsets: start and end of each token, in characters of `text`, as tokenizers give them; none before `start`.

    >>> token_words("> it's so", 2, [(2, 4), (4, 6), (6, 9)])
    [1, 1, 3]
    """
    word_starts = [word.start() for word in _WORD.finditer(text, start)]
    numbers = []
    for begin, end in offsets:
        visible = end - len(text[begin:end].lstrip())
        numbers.append(bisect_right(word_starts, visible if visible < end else begin))
    return numbers
