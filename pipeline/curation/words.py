"""Text as words and n-grams of words, for comparisons that shouldn't see case, punctuation or compatibility forms."""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """`"The 2nd  Café!"` gives `["the", "2nd", "café"]`."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _WORD.findall(text.lower())


def ngrams(words: list[str], n: int) -> list[str]:
    """Every run of n words, joined by spaces; the whole text when it is shorter. Repeats are kept."""
    return [" ".join(words[start : start + n]) for start in range(max(1, len(words) - n + 1))]
