"""Revision sentence by sentence, for revisers too small to correct a whole answer (`reviser.style: sentences`).

A model of one or two billion parameters that is given the whole draft returns it unchanged, or returns the reference. So
the program plans and the model only looks at single sentences:

1. sentences of the draft that repeat an earlier one, or that break off at the end, are dropped;
2. those that say what the reference says are kept; the model is asked to repeat, mend or delete each of the others;
3. sentences of the reference that nothing kept covers are added, two at most.

The result is a splice of draft and reference with the model's repairs and vetoes, and has to be called that. This module
is pure text: it never sees a model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Each question costs a small model two or three seconds; a longer draft keeps only its first sentences.
MOST_ASKED = 4
MOST_ADDED = 2
ANSWER_TOKENS = 80
_SAME, _COVERED = 0.6, 0.5
# After a full stop behind a letter or a closing mark (so not behind the number of a list item), or at a line's end.
_BOUNDARY = re.compile(r"""(?<=[^\W\d][.!?…])\s+|(?<=[.!?…]["”’)\]])\s+|\n+""")
_ENDS = (".", "!", "?", "…", '"', "”", "’", ")", "]", "`")


def split(text: str) -> list[str]:
    """Sentences with the white space that follows them: joined they are the text.

    >>> split("One. Two?\\n1. Three")
    ['One. ', 'Two?\\n', '1. Three']
    """
    ends = [match.end() for match in _BOUNDARY.finditer(text)]
    pieces = [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    return [piece for piece in pieces if piece]


def worth_keeping(draft: str) -> list[str]:
    """The draft's sentences without those that repeat an earlier one, and without a broken-off end."""
    kept: list[str] = []
    pieces = split(draft)
    if len(pieces) > 1 and not pieces[-1].rstrip().endswith(_ENDS):
        pieces.pop()
    for piece in pieces:
        if not any(overlap(piece, earlier) > 0.8 and overlap(earlier, piece) > 0.8 for earlier in kept):
            kept.append(piece)
    return kept


def agrees(sentence: str, reference: str) -> bool:
    """Whether one sentence of the reference holds most of this sentence's words."""
    return any(overlap(sentence, other) >= _SAME for other in split(reference))


def read_repair(answer: str, sentence: str, cut: bool) -> str:
    """What becomes of a sentence by the model's answer: itself, mended, or nothing.

    >>> read_repair("DELETE", "The Moon is flat. ", False)
    ''
    >>> read_repair("The Moon is round.", "The Moon is flat. ", False)
    'The Moon is round. '
    """
    text = " ".join(answer.strip().strip('"').split())
    if text.upper().startswith("DELETE"):
        return ""
    space = sentence[len(sentence.rstrip()) :]
    unusable = cut or not text or "<" in text or len(text) > 2 * len(sentence) + 40
    return sentence if unusable or text == sentence.strip() else text + space


def assemble(kept: Sequence[str], reference: str, reason: str) -> str:
    """The kept sentences with what they lack of the reference: before them where the draft was wrong, else behind them."""
    missing = [s for s in split(reference) if _words(s) and overlap(s, "".join(kept)) < _COVERED][:MOST_ADDED]
    ordered = [*missing, *kept] if reason in ("inaccuracy", "other") else [*kept, *missing]
    return "".join(piece if piece[-1:].isspace() else piece + " " for piece in ordered if piece).strip()


def overlap(sentence: str, other: str) -> float:
    """Share of the sentence's longer words that the other text has too, by their first letters; 1 if it has none."""
    mine, theirs = _words(sentence), _words(other)
    return len(mine & theirs) / len(mine) if mine else 1.0


def _words(text: str) -> set[str]:
    return {word[:6] for word in re.findall(r"\w{4,}", text.lower())}
