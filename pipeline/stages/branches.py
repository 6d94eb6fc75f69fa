"""Revision by branching: a model that repeats a draft word for word still shows where it hesitated.

A small model, asked to correct a whole answer, mostly returns it unchanged. But its probabilities say more than its likeliest
answer: where the draft has "about 10 minutes", "six" comes a close second. So the answer is written once, greedily; then, from
the places where another token was likeliest, it is written again: the same beginning, the other token, and on from there
(as in chain-of-thought decoding, Wang & Zhou 2024, arXiv 2402.10200). Each result is a small correction, a rewording, or
nonsense. `best` takes the one that comes nearest to the reference among those that

    replace        remove a word or a number of the draft; what only adds keeps the draft's mistakes
    are grounded   take what they bring in from the reference
    differ         from the draft, by no more than `_FARTHEST`, and from the reference, by no less than `_NEAREST`; and
                   don't hold the whole reference beside what is left of the draft
    turn           begin with a "no", "not", "but" or the like, where the reference declines or denies
    hang together  say nothing twice, and nothing of the task itself

Pure: sees text and probabilities, never a model.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rapidfuzz.distance import LCSseq, Levenshtein

from pipeline.stages.revision_checks import denies, opening, rouge_l, turns, word_distance

VERSION = 2  # raise it when results change
MOST = 4  # branches per answer, the one at its end not counted
ALTERNATIVES = 3  # tokens to request at each place
_LEAST_PROBABILITY = 0.04
_LEAST_GROUNDED = 0.7
_LEAST_GAIN = 0.08  # of ROUGE-L with the reference
_FARTHEST = 0.8
_NEAREST = 0.3
_WHOLE = 0.9
_PRONOUNS = ("that", "this", "they", "them", "your", "there")
# Words that a revision may say of its task only where draft or reference do.
_TASK = ("facts", "reply", "draft")


def beginnings(logprobs: Sequence[Sequence[Sequence[Any]]], text: str, draft: str, reference: str) -> list[str]:
    """Beginnings of other answers than `text`, the longest first; logprobs: of each token of `text`, itself and alternatives.

    The longest first, because each is then a part of what a prompt cache already holds. None begins with another first word:
    that is another answer, no correction. None goes on behind the end where `text` has all of the draft: that only adds. Where
    `text` copies the reference there is none: they copy it too.

    >>> boil = [["Boil", -0.1]], [[" ten", -0.5], [" six", -1.0]], [["", -0.1], [" minutes", -2.4]]
    >>> beginnings(boil, "Boil ten", draft="Boil nine", reference="Six minutes")
    ['Boil ten minutes', 'Boil six']
    """
    why = fault(text, draft, reference)
    if why == "copies_reference":
        return []
    places: list[tuple[float, int, str]] = []
    written, ends = [str(tokens[0][0]) for tokens in logprobs], len(logprobs) - 1
    for place, tokens in enumerate(logprobs):
        if place == ends and not written[ends] and why in ("unchanged", "only_adds"):
            continue
        others = [(p, t) for t, p in tokens[1:] if t.strip() and t.strip().lower() != written[place].strip().lower()]
        if place == 0:
            others = [(p, t) for p, t in others if t.startswith(written[0])]
        if others:
            logprob, other = max(others)
            places.append((math.exp(logprob), place, other))
    likely = sorted((p for p in places if p[0] >= _LEAST_PROBABILITY), reverse=True)[:MOST]
    # One more sentence after what would be the end.
    last = [p for p in places if p[1] == ends and not written[ends]]
    found = ((place, "".join(written[:place]), other) for _, place, other in {*likely, *last})
    # Half a character is written as a replacement character: what follows it isn't in the text.
    return [
        start + other
        for _, start, other in sorted(found, reverse=True)
        if text.startswith(start) and other.isprintable()
    ]


def best(candidates: Iterable[str], draft: str, reference: str) -> tuple[str | None, dict[str, int]]:
    """The revision that comes nearest to the reference of those without a fault, None without one; and how many miss what."""
    faults = {text: fault(text, draft, reference) for text in candidates}
    passed = [text for text, why in faults.items() if not why]
    nearest = max(passed, key=lambda text: rouge_l(text, reference), default=None)
    return nearest, dict(Counter(filter(None, faults.values())))


def fault(text: str, draft: str, reference: str) -> str | None:
    """The first condition of this module that a revision misses."""
    removed, added = _edited(draft, text)
    theirs = set(_words(reference))
    content = [word for word in added if len(word) > 3 or word.isdigit()]
    grounded = sum(word in theirs for word in content) / max(1, len(content))
    misses = {
        "unchanged": not removed and not added,
        "only_adds": not any(len(word) > 3 or word.isdigit() for word in removed if word not in _PRONOUNS),
        "not_grounded": bool(content) and grounded < _LEAST_GROUNDED,
        "no_nearer": rouge_l(text, reference) - rouge_l(draft, reference) < _LEAST_GAIN,
        "copies_reference": word_distance(text, reference) < _NEAREST or _share(reference, text) > _WHOLE,
        "too_different": word_distance(text, draft) > _FARTHEST,
        "does_not_turn": denies(reference) and not turns(opening(text)),
        "speaks_of_task": any(word in content and word not in theirs for word in _TASK),
        "repeats": _repeats(text),
    }
    return next((name for name, missed in misses.items() if missed), None)


def diagnosis(draft: str, revised: str, reference: str) -> str:
    """The kind of fault that a revision mended, by what it changed: one of `REASONS`.

    other: the reference declines or denies; structure: only removed; lack_of_detail: three words added for each removed;
    else inaccuracy.
    """
    removed, added = _edited(draft, revised)
    if denies(reference):
        return "other"
    if not added:
        return "structure"
    return "lack_of_detail" if len(added) > 3 * len(removed) else "inaccuracy"


def _share(reference: str, text: str) -> float:
    """The share of the reference's words that the text has in the same order."""
    theirs = _words(reference)
    return LCSseq.similarity(theirs, _words(text)) / max(1, len(theirs))


def _repeats(text: str) -> bool:
    """Whether a sentence says what one before it does: three quarters of the shorter one's words."""
    split = (_words(sentence) for sentence in re.split(r"[.!?\n]+", text))
    sentences = [set(words) for words in split if len(words) > 3]
    return any(
        len(sentence & other) > 0.75 * min(len(sentence), len(other))
        for number, sentence in enumerate(sentences)
        for other in sentences[:number]
    )


def _edited(draft: str, text: str) -> tuple[list[str], list[str]]:
    """The words that a revision removed from the draft and those that it added."""
    before, after = _words(draft), _words(text)
    edits = [edit for edit in Levenshtein.opcodes(before, after) if edit.tag != "equal"]
    removed = [word for edit in edits for word in before[edit.src_start : edit.src_end]]
    return removed, [word for edit in edits for word in after[edit.dest_start : edit.dest_end]]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
