"""What is sent to a language model, and what answers it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.models.adaptation import Changes
from pipeline.models.answer import Answer
from pipeline.models.limiter import Quota

# What a chat template writes around the messages; some add a system prompt of their own.
_TEMPLATE_TOKENS = 64

OnQuotas = Callable[[Mapping[str, Quota]], None]
"""Gets the quotas that the server announces in its response to a call, also to a refused one."""


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
