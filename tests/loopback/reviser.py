"""A reviser that mends: diagnoses a draft, then edits it a little, towards the reference.

Texts are found in the user turns between `<draft-1a2b3c4d>` and `</draft-1a2b3c4d>`, the word naming the text and the
hex digits being the run's nonce. What is asked for decides what is answered:

    a JSON schema           its fields, by name: reason or diagnosis; revised, revision, answer ...; edits
    a first user turn       that names the four reasons: one of them
    a turn with `"edits"`   the edits as JSON in a code fence, as models give it that no schema holds
    any other user turn     the revised draft, inside `<revised-…>` or a like tag if the turn shows such a tag
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.loopback import schema
from tests.loopback.chat import ChatRequest, Reply, number_from

REASONS = ("lack_of_detail", "inaccuracy", "structure", "other")

# What the policy gets wrong, and how it reads when put right. None is a part of another.
MISTAKES = {
    "The sun rises in the west.": "The sun rises in the east.",
    "Water boils at 50 degrees Celsius.": "Water boils at 100 degrees Celsius.",
    "A week has eight days.": "A week has seven days.",
    "Their is no need to hurry.": "There is no need to hurry.",
    "You will definately recieve an answer.": "You will definitely receive an answer.",
    "Two and two make five.": "Two and two make four.",
}
# For drafts without a known mistake: small changes that keep the sense.
SWAPS = {"good": "sound", "simple": "plain", "often": "regularly", "first": "initial", "same": "identical"}

_BLOCK = re.compile(r"<([a-z_]+)-([0-9a-f]{4,64})>(.*?)</\1-\2>", re.DOTALL)
_ANSWER_TAG = re.compile(r"<((?:revised|revision|rewrite|rewritten|answer|response|output|result)-[0-9a-f]{4,64})>")
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]+")
_REASON_FIELDS = ("reason", "diagnosis", "category", "problem")
_EDIT_FIELDS = ("edits", "changes", "replacements")


def blocks_of(text: str) -> dict[str, str]:
    """The delimited texts of one message by name, white space at the ends dropped; of two with one name, the last.

    >>> blocks_of("fix <draft-0a1b>\\nHi\\n</draft-0a1b>")
    {'draft': 'Hi'}
    """
    return {name: body.strip() for name, _, body in _BLOCK.findall(text)}


def reviser(request: ChatRequest) -> Reply:
    blocks: dict[str, str] = {}
    for turn in request.user_turns:
        blocks.update(blocks_of(turn))
    draft, reference = blocks.get("draft"), blocks.get("reference", "")
    if draft is None:
        return Reply("I see no draft to revise.")
    reason = diagnose(draft, reference)
    if request.schema is not None:
        return Reply(_as_schema_asks(request.schema, draft, reference, reason))
    if len(request.user_turns) == 1 and "lack_of_detail" in request.last_user:
        return Reply(reason)
    if '"edits"' in request.last_user:
        edits = [{"find": find, "replace": replacement} for find, replacement in edit_script(draft, reference)]
        return Reply(f"Here are the edits:\n```json\n{json.dumps({'edits': edits}, ensure_ascii=False)}\n```")
    return Reply(_tagged(revise(draft, reference), request.last_user))


def diagnose(draft: str, reference: str) -> str:
    """A known mistake is an inaccuracy; much shorter than the reference lacks detail; else the text's hash decides."""
    if any(mistake in draft for mistake in MISTAKES):
        return "inaccuracy"
    if len(draft) * 2 < len(reference):
        return "lack_of_detail"
    return REASONS[number_from(draft, reference) % len(REASONS)]


def revise(draft: str, reference: str) -> str:
    """The draft with its edits applied, and one sentence of the reference that it lacks at the end."""
    for find, replacement in edits_for(draft):
        draft = draft.replace(find, replacement, 1)
    addition = _missing_sentence(draft, reference)
    return f"{draft} {addition}" if addition and draft else draft or reference


def edits_for(draft: str) -> list[tuple[str, str]]:
    """At most two (find, replace) pairs, each on word boundaries; `find` occurs in the draft exactly once."""
    wanted = list(MISTAKES.items())
    wanted += [(match[0], SWAPS[match[0]]) for match in re.finditer(r"\b[a-z]+\b", draft) if match[0] in SWAPS]
    edits = {
        find: replacement
        for find, replacement in wanted
        if len(re.findall(rf"(?<!\w){re.escape(find)}(?!\w)", draft)) == 1 == draft.count(find)
    }
    return list(edits.items())[:2]


def edit_script(draft: str, reference: str) -> list[tuple[str, str]]:
    """Edits that turn the draft into `revise(draft, reference)`; what is added comes behind the draft's last words."""
    edits = edits_for(draft)
    mended = draft
    for find, replacement in edits:
        mended = mended.replace(find, replacement, 1)
    addition = _missing_sentence(mended, reference)
    if not addition or not draft:
        return edits
    spans = {edit: (draft.index(edit[0]), draft.index(edit[0]) + len(edit[0])) for edit in edits}
    starts = [match.start() for match in re.finditer(r"\S+", draft)]
    start = next(
        start
        for start in reversed(starts)
        if draft.find(draft[start:]) == start and not any(first < start < end for first, end in spans.values())
    )
    tail = draft[start:]
    for find, replacement in edits:
        tail = tail.replace(find, replacement, 1)
    before = [edit for edit in edits if spans[edit][0] < start]
    return [*before, (draft[start:], f"{tail} {addition}")]


def _missing_sentence(draft: str, reference: str) -> str:
    sentences = [sentence.strip() for sentence in _SENTENCE.findall(reference)]
    lacking = [sentence for sentence in sentences if len(sentence) > 8 and sentence not in draft]
    return lacking[number_from(draft) % len(lacking)] if lacking else ""


def _tagged(text: str, asked: str) -> str:
    tags = _ANSWER_TAG.findall(asked)
    return f"<{tags[-1]}>\n{text}\n</{tags[-1]}>" if tags else text


def _as_schema_asks(asked: dict[str, Any], draft: str, reference: str, reason: str) -> str:
    known: dict[str, Any] = dict.fromkeys(_REASON_FIELDS, reason)
    # An edit's two fields may have any names; by custom the text sought comes first.
    for name in schema.property_names(asked) & set(_EDIT_FIELDS):
        names = _edit_field_names(asked, asked["properties"][name])
        known[name] = [dict(zip(names, edit, strict=False)) for edit in edit_script(draft, reference)]
    return schema.as_json(asked, revise(draft, reference), known)


def _edit_field_names(asked: dict[str, Any], field: dict[str, Any]) -> list[str]:
    item = field.get("items", {})
    if "$ref" in item:
        item = asked.get("$defs", {}).get(item["$ref"].rsplit("/", 1)[-1], {})
    return list(item.get("properties", {"find": {}, "replace": {}}))
