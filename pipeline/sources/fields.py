"""Which field of a row plays which part: a mapping that is given, or guessed from the shapes people use.

messages     a conversation (role/content, or ShareGPT's from/value); without `reference`, its last assistant turn
             is the reference and what follows that turn is left out
prompt       the query: text, or a conversation that ends with a user turn
input        more of the query, put after a blank line (Alpaca's input, Dolly's context); may be missing or empty in a row
system       a system message; may be missing or empty in a row
reference    the reference reply: text, or a conversation whose last assistant turn it is
rejected     a worse reply; may be missing or empty in a row
initial      an answer and its revision: rows enter at the filter stage. Given together; without `reference`, or a reply at
revised      the end of `messages`, the revision is taken for the reference
transcript   hh-rlhf's two transcripts: {"transcript": "chosen", "rejected": "rejected"}
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConfigError, RowReject
from pipeline.sources.adapters.hh_rlhf import is_transcript
from pipeline.sources.text import shape, snippet

PARTS = ("messages", "prompt", "input", "system", "reference", "rejected", "initial", "revised", "transcript")
SHAPES = (
    "an object with messages | conversations | prompt + chosen/response/completion/answer | "
    "instruction (+ input) + output | question + answer/response | prompt or messages + initial + revised | "
    "hh-rlhf's chosen + rejected transcripts (for others, --set source.fields.prompt=NAME --set source.fields.reference=NAME)"
)
_PROMPTS = ("prompt", "instruction", "question", "query")
_REPLIES = ("chosen", "response", "completion", "reference", "answer", "output")
_CONVERSATIONS = ("messages", "conversations", "conversation")
_INPUTS = ("input", "context")
_SYSTEMS = ("system", "system_prompt")
_PAIRS = (("initial", "revised"), ("original_output", "revised_output"))


@dataclass(frozen=True, slots=True)
class Fields:
    """A checked mapping from part to field name. `str()` is the line that a run prints."""

    names: Mapping[str, str]

    def __str__(self) -> str:
        return ", ".join(f"{part} = {snippet(name)}" for part, name in self.names.items())

    @property
    def gives_pairs(self) -> bool:
        """Whether each row comes with an initial answer and its revision."""
        return "revised" in self.names

    def get(self, raw: Mapping[str, Any], part: str) -> Any:
        """What a row has for a part; None when the mapping or the row has nothing."""
        name = self.names.get(part)
        return None if name is None else raw.get(name)


def given(names: Mapping[str, str | None]) -> Fields | None:
    """The mapping that a user gave, checked; None when all of it is left to be guessed."""
    for part in names:
        if part not in PARTS:
            near = difflib.get_close_matches(part, PARTS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"source.fields: unknown part {part!r}, known are {', '.join(PARTS)}{hint}")
    mapped = {part: name for part in PARTS if (name := names.get(part)) is not None}
    if not mapped:
        return None
    queries = [part for part in ("messages", "prompt", "transcript") if part in mapped]
    if len(queries) != 1:
        raise ConfigError(
            f"source.fields: give exactly one of messages, prompt and transcript, the query; got {', '.join(mapped)}"
        )
    pairs = "initial" in mapped or "revised" in mapped
    if pairs and queries[0] == "transcript":
        raise ConfigError("source.fields: initial and revised go with prompt or messages, not with transcript")
    needed = {"messages": (), "prompt": ("reference",), "transcript": ("rejected",)}[queries[0]]
    for part in ("initial", "revised") if pairs else needed:
        if part not in mapped:
            raise ConfigError(f"source.fields: {queries[0]} also needs source.fields.{part}; got {', '.join(mapped)}")
    return Fields(mapped)


def guess(raw: Mapping[str, Any]) -> Fields:
    """The mapping that fits a row of a common shape; RowReject("wrong_shape") when none does."""
    prompt = _first(raw, _PROMPTS)
    answer = _first(raw, _REPLIES)
    conversation = next((name for name in _CONVERSATIONS if isinstance(raw.get(name), list)), None)
    pair = next((pair for pair in _PAIRS if all(isinstance(raw.get(name), str) for name in pair)), None)
    if prompt and (answer or pair):
        names = {"prompt": prompt} | ({"reference": answer} if answer else {})
        more = next((name for name in _INPUTS if name in raw), None)
        if more and prompt != "prompt":
            names["input"] = more
    elif conversation and pair and answer:
        names = {"messages": conversation, "reference": answer}
    elif is_transcript(raw.get("chosen")) and isinstance(raw.get("rejected"), str):
        return Fields({"transcript": "chosen", "rejected": "rejected"})
    elif conversation:
        names = {"messages": conversation}
    elif isinstance(raw.get("chosen"), list):
        names = {"messages": "chosen"}
    else:
        raise RowReject("wrong_shape", expected=SHAPES, got=shape(raw))
    if pair:
        names |= {"initial": pair[0], "revised": pair[1]}
    system = next((name for name in _SYSTEMS if isinstance(raw.get(name), str)), None)
    if system:
        names["system"] = system
    if "rejected" in raw and "chosen" in names.values():
        names["rejected"] = "rejected"
    return Fields(names)


def _first(raw: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of the names under which the row has text or a conversation."""
    for name in names:
        value = raw.get(name)
        if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], dict)):
            return name
    return None
