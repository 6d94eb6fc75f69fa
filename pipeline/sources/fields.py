"""Which field of a row plays which part: a mapping from the settings, or guessed from the shapes people use.

messages     a conversation (role/content, or ShareGPT's from/value); without `reference`, its last assistant turn
             is the reference and what follows that turn is left out
prompt       the query: text, or a conversation that ends with a user turn
input        more of the query, put after a blank line (Alpaca's input, Dolly's context); may be missing or empty in a row
system       a system message; may be missing or empty in a row
reference    the reference reply: text, or a conversation whose last assistant turn it is
rejected     a worse reply; may be missing or empty in a row
initial      a pre-made pair of answer and revision: rows enter at the filter stage. Both are needed; without `reference`, or a
revised      reply at the end of `messages`, the revision is the reference too
transcript   hh-rlhf's two transcripts: {"transcript": "chosen", "rejected": "rejected"}
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConfigError, RowReject
from pipeline.sources.adapters.hh_rlhf import is_transcript
from pipeline.text import did_you_mean, shape, snippet

PARTS = ("messages", "prompt", "input", "system", "reference", "rejected", "initial", "revised", "transcript")
SHAPES = (
    "an object with messages | conversations | prompt + chosen/response/completion/answer | "
    "instruction (+ input) + output | question + answer/response | prompt or messages + initial + revised | "
    "hh-rlhf's chosen + rejected transcripts (for others, --set source.fields.prompt=NAME --set source.fields.reference=NAME)"
)
_NEEDED = {"messages": (), "prompt": ("reference",), "transcript": ("rejected",)}
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


def from_settings(names: Mapping[str, str | None]) -> Fields | None:
    """The mapping of `source.fields`, checked; None when it is empty and so to be guessed."""
    for part in names:
        if part not in PARTS:
            hint = did_you_mean(part, PARTS)
            raise ConfigError(f"source.fields: unknown part {part!r}, known are {', '.join(PARTS)}{hint}")
    mapped = {part: name for part in PARTS if (name := names.get(part)) is not None}
    if not mapped:
        return None
    got = ", ".join(mapped)
    queries = [part for part in _NEEDED if part in mapped]
    if len(queries) != 1:
        raise ConfigError(f"source.fields: give exactly one of messages, prompt and transcript, the query; got {got}")
    pairs = "initial" in mapped or "revised" in mapped
    if pairs and queries[0] == "transcript":
        raise ConfigError("source.fields: initial and revised go with prompt or messages, not with transcript")
    for part in ("initial", "revised") if pairs else _NEEDED[queries[0]]:
        if part not in mapped:
            raise ConfigError(f"source.fields: {queries[0]} also needs source.fields.{part}; got {got}")
    return Fields(mapped)


def guess(raw: Mapping[str, Any]) -> Fields:
    """The mapping that fits a row of a common shape; RowReject("wrong_shape") when none does."""
    texts = [name for name, value in raw.items() if isinstance(value, str)]
    lists = [name for name, value in raw.items() if isinstance(value, list)]
    replies = texts + [name for name in lists if raw[name] and isinstance(raw[name][0], dict)]
    prompt, answer = _first(_PROMPTS, replies), _first(_REPLIES, replies)
    conversation = _first(_CONVERSATIONS, lists)
    pair = next((pair for pair in _PAIRS if pair[0] in texts and pair[1] in texts), None)
    if prompt and (answer or pair):
        names = {"prompt": prompt} | ({"reference": answer} if answer else {})
        more = _first(_INPUTS, raw)
        if more and prompt != "prompt":
            names["input"] = more
    elif conversation and pair and answer:
        names = {"messages": conversation, "reference": answer}
    elif is_transcript(raw.get("chosen")) and "rejected" in texts:
        return Fields({"transcript": "chosen", "rejected": "rejected"})
    elif conversation or "chosen" in lists:
        names = {"messages": conversation or "chosen"}
    else:
        raise RowReject("wrong_shape", expected=SHAPES, got=shape(raw))
    if pair:
        names |= {"initial": pair[0], "revised": pair[1]}
    if system := _first(_SYSTEMS, texts):
        names["system"] = system
    if "rejected" in raw and "chosen" in names.values():
        names["rejected"] = "rejected"
    return Fields(names)


def _first(names: tuple[str, ...], present: Collection[str]) -> str | None:
    return next((name for name in names if name in present), None)
