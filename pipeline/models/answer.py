"""A language model's answer, and its JSON in the journal."""

import json
from dataclasses import dataclass, fields
from typing import Any, Self

# So many of an answer's fields are always in the journal.
_ALWAYS = 8


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
