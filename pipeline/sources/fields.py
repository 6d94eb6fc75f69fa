"""Rows read under a mapping of fields, from part to field name: set, or guessed from the shapes people use.

messages     a conversation in any shape that `turns.py` reads; without `reference`, its last assistant turn is the reference
             and what follows that turn is left out
prompt       the query: text, or a conversation that ends with a user turn
input        more of the query, put after a blank line (Alpaca's input, Dolly's context); may be missing or empty in a row
history      turns before the prompt; may be missing or empty in a row, as system may
system       a system message
reference    the reference reply: text, a turn, or a whole conversation, whose earlier turns are then the query
rejected     a worse reply, stored likewise; may be missing or empty in a row
label        whether the reference is a good one (KTO): false, or 0, rejects the row as undesirable_reference
initial      a pre-made pair of answer and revision: rows enter at the filter stage. Both are needed; without `reference`, or a
revised      reply at the end of `messages`, the revision is the reference too
diagnosis    of a pair, which of the four reasons; another word, or none, is `other`
critique     of a pair, what is wrong with its initial answer, text or several; may be missing in a row, as diagnosis may
transcript   hh-rlhf's two transcripts: {"transcript": "chosen", "rejected": "rejected"}

A guess goes by the names below, the first that a row has. Where two readings are possible, a conversation goes before a prompt
beside it, because it has the system message and the turns before.
"""

from collections.abc import Collection, Mapping
from typing import Any

from pipeline.config.settings import REASONS
from pipeline.errors import ConfigError, RowReject
from pipeline.sources.adapters import hh_rlhf
from pipeline.sources.row import SourceRow, query, reply
from pipeline.sources.turns import (
    CONVERSATIONS,
    Turns,
    first_of,
    is_conversation,
    missing,
    refuse_unsupported,
    split_at_reply,
    turns_of,
)
from pipeline.text import did_you_mean, shape, snippet

# From part to field name.
Fields = Mapping[str, str]

_PARTS = "messages prompt input history system reference rejected label initial revised diagnosis critique transcript"
PARTS = tuple(_PARTS.split())
SHAPES = (
    "an object with messages | conversations | prompt + chosen/response/completion/answer | "
    "instruction (+ input) + output | question + answer/response | prompt or messages + initial + revised | "
    "hh-rlhf's chosen + rejected transcripts (for others, --set source.fields.prompt=NAME --set source.fields.reference=NAME)"
)
_NEEDED = {"messages": (), "prompt": ("reference",), "transcript": ("rejected",)}
_PROMPTS = ("prompt", "instruction", "question", "query", "input")
_REPLIES = ("chosen", "response", "completion", "reference", "answer", "output")
_PAIRS = (
    ("initial", "revised"),
    ("original_output", "revised_output"),
    ("alpaca_original_output", "revised_output"),
    ("original_response", "edited_response"),
    ("answer", "correction"),
    ("output", "revised_output"),  # beside `raw`, the reference: SPA's first README
)
# What a row may lack, by the names that are looked for; which of them apply depends on the rest, see `_more`.
_OPTIONAL = {
    "input": ("input", "context"),
    "history": ("history",),
    "system": ("system", "system_prompt", "system_message"),
    "rejected": ("rejected",),
    "label": ("label", "kto_tag"),
    "diagnosis": ("diagnosis",),
    "critique": ("critique", "feedback", "rationale", "rational"),
}
_TRUE, _FALSE = ("true", "1", "1.0"), ("false", "0", "0.0")


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
    """The mapping that fits a row of a common shape, without what it may lack; RowReject("wrong_shape") when none does."""
    texts = [name for name, value in raw.items() if isinstance(value, str)]
    spoken = texts + [name for name in raw if name not in texts and is_conversation(raw[name])]
    pair = next((pair for pair in _PAIRS if set(pair) <= set(spoken)), None)
    if pair == _PAIRS[-1] and "raw" not in texts:
        pair = None
    answer = _first([name for name in ("raw", *_REPLIES) if name not in (pair or ("raw",))], spoken)
    talks = [name for name in CONVERSATIONS if is_conversation(raw.get(name), in_its_column=True)]
    prompt = _first(_PROMPTS, spoken)
    conversation = _first(talks, raw) or ("context" if not prompt and is_conversation(raw.get("context")) else None)
    if hh_rlhf.is_transcript(raw.get("chosen")) and "rejected" in texts:
        return {"transcript": "chosen", "rejected": "rejected"}
    if conversation:
        turns = turns_of(raw[conversation], conversation)
        answer = pair[1] if pair and not answer and conversation == "context" else answer
        # Beside a conversation that has its reply, as in ultrachat, only `chosen` is another one.
        open_ended = pair or answer == "chosen" or turns[-1][0] == "user"
        names = {"messages": conversation} | ({"reference": answer} if answer and open_ended else {})
        if answer and prompt in texts and not any(raw[prompt].strip() in text for _, text in turns):
            names = {"prompt": prompt, "history": conversation, "reference": answer}
    elif prompt and (answer or pair):
        names = {"prompt": prompt} | ({"reference": answer} if answer else {})
    elif answer == "chosen" and answer not in texts:
        names = {"messages": answer}
    else:
        raise RowReject("wrong_shape", expected=SHAPES, got=shape(raw))
    return names | ({"initial": pair[0], "revised": pair[1]} if pair else {})


def complete(raw: Mapping[str, Any], fields: Fields, without: Collection[str] = ()) -> Fields:
    """A guessed mapping with the fields that this row has besides, but for the parts in `without`.

    A label that is true or false, rather than a number or a word, always counts.
    """
    if "transcript" in fields:
        return fields
    label = first_of(_OPTIONAL["label"], raw)
    without = set(without) - ({"label"} if isinstance(label, bool) else set())
    apply = {
        "input": fields.get("prompt", "prompt") != "prompt",
        "history": "prompt" in fields,
        "rejected": "chosen" in fields.values() and "revised" not in fields,
        "label": "revised" not in fields and "rejected" not in raw and _word(label) in _TRUE + _FALSE,
        "diagnosis": "revised" in fields,
        "critique": "revised" in fields,
    }
    free = [name for name in raw if name not in fields.values()]
    filled = [name for name in free if not missing(raw[name])]
    parts = {part: names for part, names in _OPTIONAL.items() if part not in fields and apply.get(part, True)}
    found = {part: _first(names, filled) or _first(names, free) for part, names in parts.items()}
    return {**fields, **{part: name for part, name in found.items() if name and part not in without}}


def read(raw: Mapping[str, Any], fields: Fields) -> SourceRow:
    """The row's query, reference, rejected reply and pair; RowReject when it isn't of the mapping's shape."""
    refuse_unsupported(raw, "")
    if "transcript" in fields:
        return hh_rlhf.parse({"chosen": raw.get(fields["transcript"]), "rejected": raw.get(fields["rejected"])})
    initial, revised = _pair(raw, fields) if "revised" in fields else (None, None)
    turns = turns_of(raw.get(fields["messages"]), fields["messages"]) if "messages" in fields else _prompt(raw, fields)
    if "reference" in fields or (revised is not None and ("prompt" in fields or turns[-1][0] == "user")):
        before, reference = _reply(raw, fields.get("reference") or fields["revised"])
        if any(role == "user" for role, _ in before):
            turns = turns if turns[-len(before) :] == before else before
        elif turns[-1][0] == "assistant" and turns[-1][1].strip() == reference.strip():
            turns = turns[:-1]
    else:
        turns, reference = split_at_reply(turns)
    _refuse_undesirable(raw, fields)
    rejected = _rejected(raw, fields, turns)
    system = _optional(raw, fields, "system")
    if system and turns[:1] != [("system", system)]:
        turns = [("system", system), *turns]
    diagnosis, critique = (_note(raw, fields, part) for part in ("diagnosis", "critique"))
    if diagnosis not in REASONS:
        diagnosis = None
    rejected = None if rejected == reference else rejected
    return SourceRow(query(turns), reply(reference), rejected, 0, initial, revised, diagnosis, critique)


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
    name, past = fields["prompt"], _value(raw, fields, "history")
    turns = turns_of(raw[name], name) if is_conversation(raw.get(name)) else [("user", text_of(raw, name))]
    if extra := _optional(raw, fields, "input"):
        role, content = turns[-1]
        turns[-1] = (role, f"{content}\n\n{extra}")
    return turns if missing(past) or past in ([], "", "[]") else turns_of(past, fields["history"]) + turns


def _refuse_undesirable(raw: Mapping[str, Any], fields: Fields) -> None:
    if missing(value := _value(raw, fields, "label")):
        return
    word, got = _word(value), f"{fields['label']}: {snippet(value)}"
    if word in _FALSE:
        raise RowReject("undesirable_reference", expected="a reply that is not labelled a bad one", got=got)
    if word not in _TRUE:
        raise RowReject("wrong_shape", expected=f"true or false in {fields['label']!r}", got=got)


def _word(value: object) -> str:
    return str(value).strip().lower()


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
    if is_conversation(raw.get(name)):
        return split_at_reply(turns_of(raw[name], name))
    return [], text_of(raw, name)


def _optional(raw: Mapping[str, Any], fields: Fields, part: str) -> str:
    """Text that a row may lack; empty when it is blank."""
    text = "" if missing(_value(raw, fields, part)) else text_of(raw, fields[part])
    return text if text.strip() else ""


def _note(raw: Mapping[str, Any], fields: Fields, part: str) -> str | None:
    """Text about a row, several texts joined by line feeds; None where there is none: that doesn't cost the row."""
    value = _value(raw, fields, part)
    texts = [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str) and text.strip()]
    return "\n".join(texts) or None


def _value(raw: Mapping[str, Any], fields: Fields, part: str) -> Any:
    return raw.get(fields[part]) if part in fields else None


def _first(names: Collection[str], present: Collection[str]) -> str | None:
    return next((name for name in names if name in present), None)
