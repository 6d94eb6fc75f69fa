"""A chat call, free of any provider's spelling: what came in, what a behaviour answers, what is then sent and billed.

This file never sees a socket or a header.

A token is four characters here, rounded up. It is no tokenizer's truth, but it is exact, cheap and the same
everywhere, so a test can work out by hand what a call costs and where `max_tokens` cuts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

CHARACTERS_A_TOKEN = 4
TURN_OVERHEAD = 4

STOP = "stop"
LENGTH = "length"
STOP_SEQUENCE = "stop_sequence"
CONTENT_FILTER = "content_filter"
REFUSAL = "refusal"


class BadRequest(Exception):
    """The request would be refused by the real provider as well; the text says why, `param` names the field."""

    def __init__(self, message: str, param: str | None = None, *, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.status = status


@dataclass(frozen=True, slots=True)
class Turn:
    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What the provider bills. `input_tokens` counts the whole prompt, cached tokens included, for either provider."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    # The part of the output that is thoughts.
    reasoning_tokens: int = 0

    @property
    def total(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One call. `system` joins all system texts; `messages` holds the other turns, in order, as plain text.

    `params` is the body without model and messages; `schema` the JSON schema asked for, if any; `key` the sha256 of
    the canonical body (`canonical_key`), the same for the same request whatever the order of its fields.
    """

    provider: str
    model: str
    system: str
    messages: tuple[Turn, ...]
    params: dict[str, Any]
    raw: dict[str, Any]
    key: str
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None

    @property
    def user_turns(self) -> list[str]:
        return [turn.text for turn in self.messages if turn.role == "user"]

    @property
    def last_user(self) -> str:
        return next((turn.text for turn in reversed(self.messages) if turn.role == "user"), "")

    @property
    def input_tokens(self) -> int:
        texts = [turn.text for turn in self.messages]
        if self.system:
            texts.append(self.system)
        return sum(count_tokens(text) + TURN_OVERHEAD for text in texts)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a behaviour answers. Leave `usage` out and it is counted; `finish` is one of this module's constants.

    chances: what could have stood at the text's end, with probabilities, the end itself first; told where log probabilities are
    asked for.
    thoughts: what comes before the text, within the same limit; where the provider puts it is its wire's `spelling`.
    """

    text: str | None = ""
    finish: str = STOP
    usage: Usage | None = None
    chances: Mapping[str, float] | None = None
    thoughts: str = ""
    spelling: str = "reasoning_content"


@dataclass(frozen=True, slots=True)
class Completion:
    """A reply cut to the request's limits, and billed: ready for a provider's spelling."""

    text: str | None
    finish: str
    usage: Usage
    stop_sequence: str | None = None
    # False spells an answer without any choice or block.
    has_choice: bool = field(default=True)
    chances: Mapping[str, float] | None = None
    # Whether the limit came before the thoughts' end, so that there is no text.
    thoughts: str = ""
    spelling: str = "reasoning_content"
    still_thinking: bool = False


Behaviour = Callable[[ChatRequest], Reply]
"""A plain function. It must depend on the request alone, never on order or time, so that reruns give the same bytes."""


def count_tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS_A_TOKEN)


def canonical_key(provider: str, body: dict[str, Any]) -> str:
    """The sha256 by which the ledger knows a request: provider and body, fields sorted, no white space."""
    # Plain ASCII, so that a lone surrogate in some row's text has a hash as well.
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{provider}\n{text}".encode()).hexdigest()


def number_from(*parts: object) -> int:
    """A number that depends on nothing but the parts' text: the source of all variety in the behaviours."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass"))
    return int.from_bytes(digest.digest()[:6], "big")


def complete(request: ChatRequest, reply: Reply, *, cached_share: float = 0.0) -> Completion:
    """Apply stop sequences, then `max_tokens`, as a model would meet them; count what isn't counted yet."""
    text, finish, stop_sequence = reply.text, reply.finish, None
    thoughts, room = reply.thoughts, request.max_tokens
    still_thinking = bool(thoughts) and room is not None and count_tokens(thoughts) >= room
    if still_thinking and room is not None:
        thoughts, text, finish = thoughts[: room * CHARACTERS_A_TOKEN], "", LENGTH
    elif room is not None:
        room -= count_tokens(thoughts)
    if text is not None and finish == STOP:
        cuts = [(text.find(stop), stop) for stop in request.stop if stop and stop in text]
        if cuts:
            cut, stop_sequence = min(cuts)
            text, finish = text[:cut], STOP_SEQUENCE
    if text is not None and room is not None and count_tokens(text) > room:
        text, finish, stop_sequence = text[: room * CHARACTERS_A_TOKEN], LENGTH, None
    usage = reply.usage
    if usage is None:
        prompt = request.input_tokens
        thought = count_tokens(thoughts)
        usage = Usage(prompt, max(1, thought + count_tokens(text or "")), int(prompt * cached_share), thought)
    return Completion(
        text,
        finish,
        usage,
        stop_sequence,
        chances=reply.chances,
        thoughts=thoughts,
        spelling=reply.spelling,
        still_thinking=still_thinking,
    )


def without_choice(completion: Completion) -> Completion:
    return replace(completion, text=None, has_choice=False)
