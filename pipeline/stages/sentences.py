"""Revision sentence by sentence, for revisers too small to correct a whole answer (`reviser.style: sentences`).

A model of one or two billion parameters that is given the whole draft returns it unchanged, or returns the reference. So
the program plans and the model only mends single sentences:

1. sentences of the draft that repeat an earlier one, break off, or share hardly a word with conversation and reference go;
2. each sentence of the reference that the draft doesn't cover, two at most, takes the place of the draft's sentence about
   the same thing; if there is none it is added, in front if the draft was diagnosed as wrong or it opens the reference
   (which answers the question), else at the end;
3. the model is asked to mend each of the draft's remaining sentences.

Where the reference declines and the draft complies, nothing of the draft is worth keeping but what agrees with the reference.

The result is a splice of draft and reference with a small model's repairs, and has to be called that. This module is pure
text: it never sees a model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# Each question costs a small model two or three seconds; a longer draft keeps only its first sentences.
MOST_ASKED = 4
MOST_ADDED = 2
ANSWER_TOKENS = 80
# Shares of words in common: off topic below the first; about the same thing; saying the same.
_ON_TOPIC, _SAME_TOPIC, _SAME = 0.15, 0.3, 0.75
# After a full stop behind a letter or a closing mark (so not behind the number of a list item), or at a line's end.
_BOUNDARY = re.compile(r"""(?<=[^\W\d][.!?…])\s+|(?<=[.!?…]["”’)\]])\s+|\n+""")
_DECLINES = re.compile(r"^\W*(?:no\b|please don|don.t\b|sorry|i.m sorry|i (?:can.t|cannot|won.t))", re.IGNORECASE)
_ENDS = (".", "!", "?", "…", '"', "”", "’", ")", "]", "`")


def split(text: str) -> list[str]:
    """Sentences with the white space that follows them: joined they are the text.

    >>> split("One. Two?\\n1. Three")
    ['One. ', 'Two?\\n', '1. Three']
    """
    ends = [match.end() for match in _BOUNDARY.finditer(text)]
    pieces = [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    return [piece for piece in pieces if piece]


@dataclass(frozen=True, slots=True)
class Piece:
    """A sentence of the answer to be; `ask` when it is the draft's and the model should look at it."""

    text: str
    ask: bool


def plan(conversation: str, reference: str, draft: str, reason: str) -> list[Piece]:
    """The answer to be, in order: sentences of the draft to ask about or to keep, and sentences of the reference."""
    kept = _worth_keeping(draft, f"{conversation} {reference}")
    theirs = split(reference)
    pieces = [Piece(s, not any(overlap(s, t) >= _SAME for t in theirs)) for s in kept][:MOST_ASKED]
    if _DECLINES.search(reference) and not _DECLINES.search(draft):
        pieces = [piece for piece in pieces if not piece.ask]
    whole = " ".join(kept)
    missing = [t for t in theirs if overlap(t, whole) < _SAME][:MOST_ADDED]
    before: list[Piece] = []
    behind: list[Piece] = []
    for sentence in missing:
        rivals = [i for i, p in enumerate(pieces) if p.ask and overlap(sentence, p.text) >= _SAME_TOPIC]
        if rivals:
            pieces[max(rivals, key=lambda i: overlap(sentence, pieces[i].text))] = Piece(sentence, False)
        elif reason in ("inaccuracy", "other") or sentence == theirs[0]:
            before.append(Piece(sentence, False))
        else:
            behind.append(Piece(sentence, False))
    return [*before, *pieces, *behind]


def join(sentences: Sequence[str]) -> str:
    """The answer: sentences with the white space that they had, or a space where they had none."""
    return "".join(s if s[-1].isspace() else f"{s} " for s in sentences if s).strip()


def read_repair(answer: str, sentence: str, *, cut: bool) -> str:
    """What becomes of a sentence by the model's answer; the sentence itself when the answer isn't one sentence.

    >>> read_repair("The Moon is round.", "The Moon is flat. ", cut=False)
    'The Moon is round. '
    """
    text = " ".join(answer.split())
    if text[:1] == text[-1:] == '"' and not sentence.startswith('"'):
        text = text[1:-1]
    space = sentence[len(sentence.rstrip()) :]
    unusable = cut or not text or "<" in text or len(text) > 2 * len(sentence) + 40
    return sentence if unusable or text == sentence.strip() else text + space


def _worth_keeping(draft: str, topic: str) -> list[str]:
    kept: list[str] = []
    pieces = split(draft)
    if len(pieces) > 1 and not pieces[-1].rstrip().endswith(_ENDS):
        pieces.pop()
    for piece in pieces:
        repeated = any(overlap(piece, earlier) > 0.8 and overlap(earlier, piece) > 0.8 for earlier in kept)
        if not repeated and overlap(piece, topic) >= _ON_TOPIC:
            kept.append(piece)
    return kept


def overlap(sentence: str, other: str) -> float:
    """Share of the sentence's longer words and numbers that the other text has too, by their beginnings; 1 without any."""
    mine, theirs = _words(sentence), _words(other)
    return len(mine & theirs) / len(mine) if mine else 1.0


def _words(text: str) -> set[str]:
    return {word[:6] for word in re.findall(r"\d+|\w{4,}", text.lower())}
