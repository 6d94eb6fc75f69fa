"""Text as words and n-grams of words, for comparisons that shouldn't see case, punctuation or compatibility forms."""

from __future__ import annotations

import re
import unicodedata

# Thai, Lao, Burmese, Khmer, kana and Han are written without spaces: each character counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_ASCII_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """`"The 2nd  Café, 東京!"` gives `["the", "2nd", "café", "東", "京"]`."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def ngrams(words: list[str], n: int) -> list[str]:
    """Every run of n words, joined by spaces; the whole text when it is shorter. Repeats are kept."""
    return [" ".join(words[start : start + n]) for start in range(max(1, len(words) - n + 1))]
