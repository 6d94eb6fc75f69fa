"""Revision by an edit script: the reviser names exact find/replace edits, the program applies them to the draft.

Models miscount, repeat themselves and quote from memory, so each edit is checked against the draft; one that fails is
dropped with its reason, and the others are applied:

    malformed          not an object with the strings `find` and `replace`, or text that UTF-8 can't hold
    repeated           the same edit again
    no_change          find equals replace
    absent             find is empty or doesn't occur in the draft
    ambiguous          find occurs more than once, overlapping occurrences included
    inside_word        find begins or ends inside a word of the draft
    joins_words        the replacement would run into the word before or behind it
    leaked_delimiter   the replacement holds one of the prompt's own delimiters
    overlapping        its place in the draft overlaps that of an edit before it

Pure: sees text, never a model, and evaluates nothing that it reads.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from pipeline.prompts import json_object, response_format
from pipeline.text import replace_surrogates

_TEXT = {"type": "string"}
FORMAT = response_format("edits", {"edits": {"type": "array", "items": json_object({"find": _TEXT, "replace": _TEXT})}})

# Letters and digits, except those of scripts that are written without spaces: there any place may be a boundary.
_WORD = re.compile(
    r"[^\W_\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
# Where a script may begin in a response that says more. Only some are tried: each costs a pass over the text.
_BEGINNING = re.compile(r'\{\s*"edits"|\[\s*(?:\{|\])')
_MOST_BEGINNINGS = 8
# Either a JSON string, whose commas stay, or a comma that closes a list or an object. A string may lack its end, or many of
# those would take quadratic time.
_TRAILING_COMMA = re.compile(r'("(?:\\.|[^"\\])*+"?)|,(?=\s*+[}\]])', re.DOTALL)
# Models write line breaks into strings unescaped.
_decoder = json.JSONDecoder(strict=False)


class Dropped(NamedTuple):
    """An edit that was not applied, as the model wrote it, and why."""

    reason: str
    edit: Any


class Edited(NamedTuple):
    """The draft with the applied edits; those edits and the dropped ones, as the model wrote them."""

    text: str
    applied: list[Any]
    dropped: list[Dropped]


def read_edits(response: str) -> list[Any] | None:
    """The entries of an edit script, unchecked; None when the response holds no script.

    Takes `{"edits": [...]}` or the bare list, between other text or in a code fence, and with trailing commas: models write
    all of these where no schema restricts them.

    >>> read_edits('Sure: [{"find": "red", "replace": "blue"},]')
    [{'find': 'red', 'replace': 'blue'}]
    """
    for text in (response, _TRAILING_COMMA.sub(lambda match: match[1] or "", response)):
        for beginning in islice(_BEGINNING.finditer(text), _MOST_BEGINNINGS):
            try:
                value, _ = _decoder.raw_decode(text, beginning.start())
            except (ValueError, RecursionError):
                continue
            edits = value.get("edits") if isinstance(value, dict) else value
            if isinstance(edits, list):
                return edits
    return None


def apply_edits(draft: str, edits: Sequence[Any], leaks: Callable[[str], bool] = lambda text: False) -> Edited:
    """Apply a script's entries to the draft, each where its `find` occurs in the *original*.

    leaks: whether a replacement holds a delimiter of the prompt.

    >>> edited = apply_edits("A red, red car.", [{"find": "car", "replace": "bus"}, {"find": "red", "replace": "blue"}])
    >>> edited.text, edited.dropped
    ('A red, red bus.', [Dropped(reason='ambiguous', edit={'find': 'red', 'replace': 'blue'})])
    """
    places: list[tuple[int, int, str]] = []
    seen: set[tuple[str, str]] = set()
    applied: list[Any] = []
    dropped: list[Dropped] = []
    for edit in edits:
        texts = [edit.get("find"), edit.get("replace")] if isinstance(edit, dict) else [None]
        if not all(isinstance(text, str) and not replace_surrogates(text)[1] for text in texts):
            dropped.append(Dropped("malformed", edit))
            continue
        find, replace = edit["find"], edit["replace"]
        start = draft.find(find)
        end = start + len(find)
        reason = "repeated" if (find, replace) in seen else _refused(draft, find, replace, leaks)
        if not reason and any(start < other_end and other_start < end for other_start, other_end, _ in places):
            reason = "overlapping"
        seen.add((find, replace))
        if reason:
            dropped.append(Dropped(reason, edit))
        else:
            places.append((start, end, replace))
            applied.append(edit)
    text = draft
    for start, end, replace in sorted(places, reverse=True):
        text = text[:start] + replace + text[end:]
    return Edited(text, applied, dropped)


def _refused(draft: str, find: str, replace: str, leaks: Callable[[str], bool]) -> str | None:
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
    return "leaked_delimiter" if leaks(replace) else None


def _joined(left: str, right: str) -> bool:
    """Whether two neighbouring characters belong to one word or one letter."""
    if not left or not right:
        return False
    return bool(unicodedata.combining(right) or (_WORD.match(left) and _WORD.match(right)))
