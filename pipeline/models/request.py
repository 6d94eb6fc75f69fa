"""What is sent to a language model, what answers it, and the answer with its JSON in the journal."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, Self

# What a chat template writes around the messages; some add a system prompt of their own.
_TEMPLATE_TOKENS = 64
# So many of an answer's fields are always in the journal.
_ALWAYS = 8

Changes = dict[str, Any]
"""By the parameter's name: None where it is left out, {"name": …} where it is renamed, {"value": …} what is sent instead."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What is sent, except the model. `params` are the SDK's names: temperature, seed, response_format, …"""

    messages: list[dict[str, str]]
    max_tokens: int
    params: dict[str, Any] = field(default_factory=dict)
    # So many messages at the beginning are the same in the first call about every row.
    shared: int = 0
    # The part of max_tokens that is for thoughts.
    thought_tokens: int = 0
    # What this server gets in place of parameters that it refuses.
    changes: Changes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """A language model's answer. Tokens as the server counted them; finish is `stop` or `length` (cut at max_tokens).

    In the journal alone there are other words for `finish`: those of answers that can't be used, see `UselessAnswer`.
    Of the prompt's tokens, `cached_tokens` came from the provider's prompt cache and `cache_write_tokens` went into it.
    """

    text: str
    finish: str
    max_tokens: int
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    request_id: str | None = None
    cache_write_tokens: int = 0
    # Where requested: for each token, itself and its likeliest alternatives as [text, log probability].
    logprobs: list[list[list[Any]]] | None = None
    # The server's counts are missing or can't be right; those above are what could be read of them.
    uncounted: bool = False
    # What the model thought, which is no part of the text, and the server's count of its tokens, 0 where it gives none.
    reasoning: str | None = None
    reasoning_tokens: int = 0
    # The server's word for `finish`, where it is another.
    end: str | None = None
    # Those of the tokens written to a cache that stay in it for an hour; what the server itself says that the call cost.
    cache_hour_tokens: int = 0
    cost_usd: float = 0.0

    @property
    def reasoned(self) -> bool:
        return bool(self.reasoning) or self.reasoning_tokens > 0

    def to_json(self) -> str:
        """All fields, the last ones only where set. ASCII: lone surrogates, which SQLite refuses, survive as escapes."""
        values = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return json.dumps({name: value for n, (name, value) in enumerate(values) if value or n < _ALWAYS})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError or TypeError for anything that `to_json` didn't write."""
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Quota:
    """One limit of a provider's when a call was admitted: `rate` a second, `remaining` now, `capacity` when full."""

    rate: float
    remaining: float
    capacity: float


OnQuotas = Callable[[Mapping[str, Quota]], None]
"""Gets the quotas that the server announces in its response to a call, also to a refused one."""


class Provider(Protocol):
    """What answers: a provider's SDK, its batch API, or servers on this machine."""

    def custom_id(self, request: ChatRequest) -> str | None:
        """The request's name in a batch, under which money may be held for it; None when it is sent at once."""
        return None

    async def complete(self, request: ChatRequest, on_quotas: OnQuotas) -> Answer:
        """Raises Transient, RowReject or ProviderStopped."""

    async def close(self) -> None: ...


def upper_bound_tokens(request: ChatRequest) -> int:
    """The most tokens of the request: its UTF-8 bytes, and a few more per message for the template.

    Parameters count as well: a schema to answer in is put into the prompt by the provider, and billed.
    """
    texts = sum(len(m["content"].encode("utf-8", "surrogatepass")) + 16 for m in request.messages)
    return texts + len(json.dumps(request.params)) + _TEMPLATE_TOKENS
