"""Rows read under a mapping of fields, from part to field name: set, or guessed from the shapes people use.

messages     a conversation (role/content, or ShareGPT's from/value); without `reference`, its last assistant turn
             is the reference and what follows that turn is left out
prompt       the query: text, or a conversation that ends with a user turn
input        more of the query, put after a blank line (Alpaca's input, Dolly's context); may be missing or empty in a row
system       a system message; may be missing or empty in a row
reference    the reference reply: text, or a conversation whose last assistant turn it is
rejected     a worse reply; may be missing or empty in a row
initial      a pre-made pair of answer and revision: rows enter at the filter stage. Both are needed; without `reference`, or a
revised      reply at the end of `messages`, the revision is the reference too
diagnosis    of a pair, which of the four reasons; another word, or none, is `other`
critique     of a pair, what is wrong with its initial answer; may be missing or empty in a row, as diagnosis may
transcript   hh-rlhf's two transcripts: {"transcript": "chosen", "rejected": "rejected"}
"""

from collections.abc import Collection, Mapping
from typing import Any

from pipeline.config.settings import REASONS
from pipeline.errors import ConfigError, RowReject
from pipeline.sources.adapters import hh_rlhf
from pipeline.sources.row import SourceRow, Turns, query, reply
from pipeline.text import did_you_mean, shape, snippet

# From part to field name.
Fields = Mapping[str, str]

PARTS = tuple("messages prompt input system reference rejected initial revised diagnosis critique transcript".split())
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
_ASSISTANTS = ("gpt", "chatgpt", "bing", "bard", "bot", "model")
_ROLES = {"human": "user", "developer": "system"} | dict.fromkeys(_ASSISTANTS, "assistant")
_PAIRS = (("initial", "revised"), ("original_output", "revised_output"))
_CRITIQUES = ("critique", "feedback")


def describe(fields: Fields) -> str:
    """The mapping as the line that a run prints."""
    return ", ".join(f"{part} = {snippet(name)}" for part, name in fields.items())


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
    return mapped


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
    elif hh_rlhf.is_transcript(raw.get("chosen")) and "rejected" in texts:
        return {"transcript": "chosen", "rejected": "rejected"}
    elif conversation or "chosen" in lists:
        names = {"messages": conversation or "chosen"}
    else:
        raise RowReject("wrong_shape", expected=SHAPES, got=shape(raw))
    if pair:
        names |= {"initial": pair[0], "revised": pair[1]}
        maybe = [name for name, value in raw.items() if value is None or isinstance(value, str)]
        notes = {"diagnosis": _first(("diagnosis",), maybe), "critique": _first(_CRITIQUES, maybe)}
        names |= {part: name for part, name in notes.items() if name}
    if system := _first(_SYSTEMS, texts):
        names["system"] = system
    if "rejected" in raw and "chosen" in names.values():
        names["rejected"] = "rejected"
    return names


def read(raw: Mapping[str, Any], fields: Fields) -> SourceRow:
    """The row's query, reference, rejected reply and pair; RowReject when it isn't of the mapping's shape."""
    if "transcript" in fields:
        return hh_rlhf.parse({"chosen": raw.get(fields["transcript"]), "rejected": raw.get(fields["rejected"])})
    initial, revised = _pair(raw, fields) if "revised" in fields else (None, None)
    turns = turns_of(raw, fields["messages"]) if "messages" in fields else _prompt(raw, fields)
    if "reference" in fields:
        _, reference = _reply(raw, fields["reference"])
    elif revised is not None and ("prompt" in fields or turns[-1][0] == "user"):
        reference = revised
    else:
        turns, reference = split_at_reply(turns)
    rejected = _rejected(raw, fields, turns)
    if system := _optional(raw, fields, "system"):
        turns = [("system", system), *turns]
    diagnosis, critique = (_note(raw, fields, part) for part in ("diagnosis", "critique"))
    if diagnosis not in REASONS:
        diagnosis = None
    return SourceRow(query(turns), reply(reference), rejected, 0, initial, revised, diagnosis, critique)


def turns_of(raw: Mapping[str, Any], name: str) -> Turns:
    """A conversation as (role, text) turns, at least one; the roles of other formats become those of chat templates."""
    value = raw.get(name)
    if not isinstance(value, list) or not value:
        raise RowReject("wrong_shape", expected=f"a conversation in {name!r}", got=shape(raw))
    turns = []
    for index, turn in enumerate(value):
        fields = turn if isinstance(turn, dict) else {}
        role, content = fields.get("role", fields.get("from")), fields.get("content", fields.get("value"))
        if not isinstance(role, str) or not isinstance(content, str):
            expected = f"turns with text in role/content or from/value in {name!r}"
            raise RowReject("wrong_shape", expected=expected, got=f"turn {index}: {shape(turn)}")
        turns.append((_ROLES.get(role.lower(), role.lower()), content))
    return turns


def split_at_reply(turns: Turns) -> tuple[Turns, str]:
    """The turns before the last assistant turn, and its text."""
    for index in reversed(range(len(turns))):
        role, text = turns[index]
        if role == "assistant":
            return turns[:index], text
    got = ", ".join(snippet(role) for role, _ in turns[-4:])
    raise RowReject("no_final_reply", expected="an assistant turn", got=got[:80])


def text_of(raw: Mapping[str, Any], name: str) -> str:
    """A field that must be text."""
    value = raw.get(name)
    if not isinstance(value, str):
        raise RowReject("wrong_shape", expected=f"text in {name!r}", got=shape(raw))
    return value


def _pair(raw: Mapping[str, Any], fields: Fields) -> tuple[str, str]:
    initial, revised = (_reply(raw, fields[part])[1] for part in ("initial", "revised"))
    for part, text in (("initial", initial), ("revision", revised)):
        if not text.strip():
            raise RowReject(f"empty_{part}", expected="an answer in words", got=snippet(text))
    return initial, revised


def _prompt(raw: Mapping[str, Any], fields: Fields) -> Turns:
    name = fields["prompt"]
    turns = turns_of(raw, name) if isinstance(raw.get(name), list) else [("user", text_of(raw, name))]
    if extra := _optional(raw, fields, "input"):
        role, content = turns[-1]
        turns[-1] = (role, f"{content}\n\n{extra}")
    return turns


def _rejected(raw: Mapping[str, Any], fields: Fields, context: Turns) -> str | None:
    """The worse reply, or None: one that is unusable, or replies to another query, doesn't cost the row."""
    if "rejected" not in fields:
        return None
    try:
        before, text = _reply(raw, fields["rejected"])
    except RowReject:
        return None
    return text if text.strip() and before in ([], context) else None


def _reply(raw: Mapping[str, Any], name: str) -> tuple[Turns, str]:
    """A reply as text, or as the last assistant turn of a conversation; with the turns before it."""
    if isinstance(raw.get(name), list):
        return split_at_reply(turns_of(raw, name))
    return [], text_of(raw, name)


def _optional(raw: Mapping[str, Any], fields: Fields, part: str) -> str:
    """Text that a row may lack; empty when it is blank."""
    name = fields.get(part)
    text = "" if name is None or raw.get(name) is None else text_of(raw, name)
    return text if text.strip() else ""


def _note(raw: Mapping[str, Any], fields: Fields, part: str) -> str | None:
    """Text about a row, None where it is blank or no text: that doesn't cost the row."""
    value = raw.get(fields.get(part, ""))
    return value if isinstance(value, str) and value.strip() else None


def _first(names: tuple[str, ...], present: Collection[str]) -> str | None:
    return next((name for name in names if name in present), None)
