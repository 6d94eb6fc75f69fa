"""Revision by an edit script: the reviser names exact find/replace edits, the program applies them to the draft.

Minimal by construction, and the answer is only as long as what changes. Models miscount, repeat themselves and quote from
memory, so each edit has to prove itself on the draft; one that doesn't is dropped with its reason, the others stand:

    malformed          not an object with the strings `find` and `replace`, or text that UTF-8 can't hold
    no_change          find equals replace
    repeated           the same edit again
    absent             find is empty or doesn't occur in the draft
    ambiguous          find occurs more than once, overlapping occurrences included
    inside_word        find begins or ends inside a word of the draft
    joins_words        the replacement would run into the word before or behind it
    leaked_delimiter   the replacement holds one of the prompt's own delimiters
    overlapping        its place in the draft meets that of an edit before it

This module is pure text: it never sees a model, and never evaluates what it reads.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from pipeline.models.provider_errors import SURROGATE

SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "edits",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "edits": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"find": {"type": "string"}, "replace": {"type": "string"}},
                        "required": ["find", "replace"],
                        "additionalProperties": False,
                    },
                }
            },
            "required": ["edits"],
            "additionalProperties": False,
        },
    },
}

# Letters and digits, but of no script that is written without spaces: there any place may be a boundary.
_WORD = re.compile(
    r"[^\W_\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
# Where a script may begin in an answer that says more; few are tried, each costs a pass over the text.
_BEGINNING = re.compile(r'\{\s*"edits"|\[\s*(?:\{|\])')
_MOST_BEGINNINGS = 8
# A JSON string (perhaps without its end, or many of those would take quadratic time), or a comma that closes a list or an
# object: inside strings no comma is touched.
_TRAILING_COMMA = re.compile(r'("(?:\\.|[^"\\])*+"?)|,(?=\s*+[}\]])', re.DOTALL)
# Models write line breaks into strings as they are.
_decoder = json.JSONDecoder(strict=False)


class Dropped(NamedTuple):
    """An edit that was not applied, as the model gave it, and why."""

    reason: str
    edit: Any


class Edited(NamedTuple):
    """The draft with the edits that were applied, those, and the others; each as it was given."""

    text: str
    applied: list[Any]
    dropped: list[Dropped]


def read_edits(answer: str) -> list[Any] | None:
    """The entries of an edit script, unchecked; None when the answer holds no script.

    Takes `{"edits": [...]}` or the bare list; between other text or in a code fence, and with trailing commas, as models
    give it where no schema holds them.

    >>> read_edits('Sure: [{"find": "red", "replace": "blue"},]')
    [{'find': 'red', 'replace': 'blue'}]
    """
    for candidate in _candidates(answer):
        try:
            value, _ = _decoder.raw_decode(candidate)
        except (ValueError, RecursionError):
            continue
        edits = value.get("edits") if isinstance(value, dict) else value
        if isinstance(edits, list):
            return edits
    return None


def _candidates(answer: str) -> Iterator[str]:
    for text in (answer, _TRAILING_COMMA.sub(lambda found: found[1] or "", answer)):
        for beginning, _ in zip(_BEGINNING.finditer(text), range(_MOST_BEGINNINGS), strict=False):
            yield text[beginning.start() :]


def apply_edits(draft: str, edits: Sequence[Any], leaks: Callable[[str], bool] = lambda text: False) -> Edited:
    """Apply a script's entries to the draft, each where its `find` stands in the *original*.

    leaks: whether a replacement holds a delimiter of the prompt.

    >>> edited = apply_edits("A red, red car.", [{"find": "car", "replace": "bus"}, {"find": "red", "replace": "blue"}])
    >>> edited.text, edited.dropped
    ('A red, red bus.', [Dropped(reason='ambiguous', edit={'find': 'red', 'replace': 'blue'})])
    """
    taken: list[tuple[int, int, str]] = []
    seen: set[tuple[str, str]] = set()
    applied: list[Any] = []
    dropped: list[Dropped] = []
    for edit in edits:
        reason = _malformed(edit)
        if not reason:
            find, replace = edit["find"], edit["replace"]
            start = draft.find(find)
            end = start + len(find)
            if (find, replace) in seen:
                reason = "repeated"
            else:
                reason = _refused(draft, find, replace) or ("leaked_delimiter" if leaks(replace) else None)
            if not reason and any(start < other_end and other_start < end for other_start, other_end, _ in taken):
                reason = "overlapping"
            seen.add((find, replace))
        if reason:
            dropped.append(Dropped(reason, edit))
        else:
            taken.append((start, end, replace))
            applied.append(edit)
    return Edited(_spliced(draft, sorted(taken)), applied, dropped)


def _malformed(edit: Any) -> str | None:
    texts = [edit.get("find"), edit.get("replace")] if isinstance(edit, dict) else [None]
    good = all(isinstance(text, str) and not SURROGATE.search(text) for text in texts)
    return None if good else "malformed"


def _refused(draft: str, find: str, replace: str) -> str | None:
    if find == replace:
        return "no_change"
    start = draft.find(find)
    if not find or start < 0:
        return "absent"
    if draft.find(find, start + 1) >= 0:
        return "ambiguous"
    before, behind = draft[:start][-1:], draft[start + len(find) :][:1]
    if _joined(before, find[0]) or _joined(find[-1], behind):
        return "inside_word"
    if _joined(before, (replace or behind)[:1]) or _joined((replace or before)[-1:], behind):
        return "joins_words"
    return None


def _joined(left: str, right: str) -> bool:
    """Whether two neighbouring characters belong to one word, or to one letter."""
    if not left or not right:
        return False
    return bool(unicodedata.combining(right) or (_WORD.match(left) and _WORD.match(right)))


def _spliced(draft: str, taken: list[tuple[int, int, str]]) -> str:
    pieces, place = [], 0
    for start, end, replace in taken:
        pieces += [draft[place:start], replace]
        place = end
    return "".join([*pieces, draft[place:]])
