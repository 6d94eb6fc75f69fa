r"""Anthropic's HH-RLHF: pairs of transcripts that differ in their last reply.

Page: https://huggingface.co/datasets/Anthropic/hh-rlhf   Licence: MIT   Format as of: 09be8c5
Paper: Bai et al., Training a Helpful and Harmless Assistant with RLHF, 2022, arXiv 2204.05862

    {"chosen":   "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: 2 + 2?\n\nAssistant: 4.",
     "rejected": "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: 2 + 2?\n\nAssistant: 5."}

gives the query Hi / Hello! / 2 + 2?, the reference "4." and the rejected reply "5.".

- Only `\n\nHuman:` and `\n\nAssistant:` (also with CRLF, and at the very start with or without the blank lines) begin a
  turn; any other blank line belongs to a reply. A turn loses its surrounding white space and is otherwise exact.
- Two turns in a row by the same speaker are one turn, joined by a blank line (`row.query`).
- The context is that of `chosen`. Where `rejected` has another one, its reply answers another question and is dropped (None).
- The models sometimes wrote a speaker's label themselves ("Assistant: Human: You mean…", "…at night.  Human: Why?").
  Who speaks is then unknown, so such a row is rejected (`marker_in_message`), never repaired.
"""

import re
from typing import Any

from pipeline.errors import RowReject
from pipeline.sources.row import Adapter, SourceRow, query, reply
from pipeline.sources.turns import Turns
from pipeline.text import shape, snippet

EXPECTED = (
    r'{"chosen": "\n\nHuman: …\n\nAssistant: …", "rejected": "\n\nHuman: …\n\nAssistant: …"}'
    " (two transcripts that end with a reply)"
)

_TURN = re.compile(r"\n\r?\n(Human|Assistant):")
_LABELS = ("Human:", "Assistant:")
_LABEL = re.compile(r"\b(?:Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_FULL_STOPS = tuple(".!?…")
_SENTENCE_ENDS = (*_FULL_STOPS, *":;,\"'”’)]*")


def is_transcript(value: Any) -> bool:
    """Whether a value is text that begins with a turn of this format."""
    return isinstance(value, str) and value.lstrip().startswith(_LABELS)


def parse(raw: dict[str, Any]) -> SourceRow:
    """The query before the last reply of `chosen`, with both final replies."""
    chosen, rejected = raw.get("chosen"), raw.get("rejected")
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        raise RowReject("wrong_shape", expected=EXPECTED, got=shape(raw))
    turns = _split(chosen)
    if turns[-1][0] != "assistant":
        got = f"{turns[-1][0]}: {snippet(turns[-1][1])}"
        raise RowReject("no_final_reply", expected="a transcript that ends with an Assistant turn", got=got)
    reference = reply(turns[-1][1])
    messages = query(turns[:-1])
    for text in (*(message["content"] for message in messages), reference):
        _refuse_marker(text)
    return SourceRow(messages, reference, _rejected_reply(rejected, turns[:-1]))


def _split(transcript: str) -> Turns:
    """The transcript as (role, text) turns, at least one."""
    before, *parts = _TURN.split("\n\n" + transcript.lstrip())
    if not parts:
        raise RowReject("wrong_shape", expected=EXPECTED, got=f"text without turns: {snippet(transcript)}")
    if before.strip():
        raise RowReject("text_before_first_turn", expected=EXPECTED, got=snippet(before))
    return [(_ROLES[label], text.strip()) for label, text in zip(parts[::2], parts[1::2], strict=True)]


def _rejected_reply(transcript: str, context: Turns) -> str | None:
    """The rejected transcript's reply, if it is a usable reply to the same context."""
    try:
        *before, (role, text) = _split(transcript)
        _refuse_marker(text)
    except RowReject:
        return None
    return text if role == "assistant" and before == context and text else None


def _refuse_marker(text: str) -> None:
    """Reject a text in which a speaker's label stands where a turn could begin, as opposed to in mid-sentence."""
    for label in _LABEL.finditer(text):
        # A window keeps this linear however much white space there is; a window of nothing but space counts as a break.
        before = text[max(0, label.start() - 8) : label.start()]
        words = before.rstrip()
        space = before[len(words) :]
        ended = words.endswith(_SENTENCE_ENDS if space else _FULL_STOPS)
        if not words or ended or space not in ("", " "):
            got = snippet(text[max(0, label.start() - 30) :])
            raise RowReject("marker_in_message", expected="no speaker's label inside a turn", got=got)


ADAPTER = Adapter("hh-rlhf", parse, EXPECTED, hub_id="Anthropic/hh-rlhf", licence="MIT", version=2)
