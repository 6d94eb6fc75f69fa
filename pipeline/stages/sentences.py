"""Revision sentence by sentence, for revisers too small to correct a whole answer (`reviser.style: sentences`).

A model of one or two billion parameters that gets the whole draft returns it unchanged, or returns the reference. So the
program plans, and the model only repairs single sentences:

1. sentences of the draft that repeat an earlier one, break off or are off topic are dropped;
2. each sentence of the reference that the draft doesn't cover, three at most, takes the place of the draft's sentence about
   the same thing, or follows the reference's sentence before it;
3. the model repairs each of the draft's remaining sentences;
4. several candidates are built: with all of these sentences, without the one that agrees least with the reference, and so on,
   and the same without repairs. The reward chooses among those that pass the filter.

Where the reference declines and the draft complies, only sentences of the draft that agree with the reference are kept.

The result is a splice of draft and reference with a small model's repairs. The diagnosis is the plan's as well: the small
model names the same fault for nearly every draft. Pure: sees text, never a model.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.models.thoughts import control_token

# Each repair takes a small model two or three seconds; a longer draft keeps only its first sentences.
MOST_REPAIRED = 4
MOST_ADDED = 3
# The gain in ROUGE-L that a splice needs: below it, a reader of 20 development rows saw no improvement.
ROUGE_GAIN = 0.25
ANSWER_TOKENS = 80
# Shares of words in common: off topic below the first; about the same thing; saying the same.
_ON_TOPIC, _SAME_TOPIC, _SAME = 0.08, 0.3, 0.75
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


class Piece(NamedTuple):
    """A sentence of the planned answer; `repair` when it is the draft's and the model should repair it."""

    text: str
    repair: bool


class Plan(NamedTuple):
    """The planned answer's sentences in order, and the draft's main fault, one of `config.settings.REASONS`."""

    pieces: tuple[Piece, ...]
    reason: str


def plan(conversation: str, reference: str, draft: str) -> Plan:
    """Plan steps 1 and 2: sentences of the draft, to repair or to keep, and sentences of the reference."""
    kept = _worth_keeping(draft, f"{conversation} {reference}")
    theirs = _whole(reference)
    pieces = [Piece(s, not any(overlap(s, t) >= _SAME for t in theirs)) for s in kept][:MOST_REPAIRED]
    declines = bool(_DECLINES.search(reference) and not _DECLINES.search(draft))
    if declines:
        pieces = [piece for piece in pieces if not piece.repair]
    whole = " ".join(kept)
    added = replaced = 0
    at = -1  # index in pieces of the reference's sentence before this one
    for sentence in theirs:
        if overlap(sentence, whole) >= _SAME:
            at = max([at, *(i for i, p in enumerate(pieces) if overlap(sentence, p.text) >= _SAME)])
        elif added < MOST_ADDED:
            added += 1
            rivals = [i for i, p in enumerate(pieces) if p.repair and overlap(sentence, p.text) >= _SAME_TOPIC]
            if rivals:
                replaced += 1
                at = max(rivals, key=lambda i: overlap(sentence, pieces[i].text))
                pieces[at] = Piece(sentence, False)
            else:
                at += 1
                pieces.insert(at, Piece(sentence, False))
    reason = "other" if declines else "inaccuracy" if replaced else "lack_of_detail" if added else "structure"
    return Plan(tuple(pieces), reason)


def candidates(pieces: Sequence[Piece], repaired: Sequence[str], reference: str) -> list[str]:
    """Different answers, the fullest first. repaired: each piece's text after its repair.

    At least one of the draft's own sentences stays, if there is any: else the answer is the reference.
    """
    own = sorted((i for i, p in enumerate(pieces) if p.repair), key=lambda i: overlap(pieces[i].text, reference))
    answers: dict[str, None] = {}
    for texts in (repaired, [piece.text for piece in pieces]):
        for dropped in range(max(1, len(own))):
            answers[join([text for i, text in enumerate(texts) if i not in own[:dropped]])] = None
    return [answer for answer in answers if answer] or [""]


def join(sentences: Sequence[str]) -> str:
    """The answer: sentences with the white space that they had, or a space where they had none."""
    return "".join(s if s[-1].isspace() else f"{s} " for s in sentences if s).strip()


def read_repair(response: str, sentence: str, *, cut: bool) -> str:
    """The sentence as the model's response has it; unchanged when the response isn't one sentence.

    >>> read_repair("The Moon is round.", "The Moon is flat. ", cut=False)
    'The Moon is round. '
    """
    text = " ".join(response.split())
    if text[:1] == text[-1:] == '"' and not sentence.startswith('"'):
        text = text[1:-1]
    space = sentence[len(sentence.rstrip()) :]
    foreign = "<" in text or control_token(text)
    unusable = cut or not text or foreign or len(text) > 2 * len(sentence) + 40
    return sentence if unusable or text == sentence.strip() else text + space


def _whole(text: str) -> list[str]:
    """Sentences without a last one that breaks off, unless it is the only one."""
    pieces = split(text)
    return pieces if len(pieces) < 2 or pieces[-1].rstrip().endswith(_ENDS) else pieces[:-1]


def _worth_keeping(draft: str, topic: str) -> list[str]:
    kept: list[str] = []
    for piece in _whole(draft):
        if not any(overlap(piece, earlier) > 0.8 and overlap(earlier, piece) > 0.8 for earlier in kept):
            kept.append(piece)
    return [piece for piece in kept if overlap(piece, topic) >= _ON_TOPIC] or kept


def overlap(sentence: str, other: str) -> float:
    """Share of the sentence's longer words and numbers that the other text has too, by their beginnings; 1 without any."""
    mine, theirs = _words(sentence), _words(other)
    return len(mine & theirs) / len(mine) if mine else 1.0


def _words(text: str) -> set[str]:
    return {word[:6] for word in re.findall(r"\d+|\w{4,}", text.lower())}
