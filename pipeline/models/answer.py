"""What a model said, and how the journal writes it down."""

from __future__ import annotations

import json
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said. Tokens as the server counted them; finish is `stop` or `length` (cut at max_tokens).

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
    # Where they were asked for: of each token, itself and its likeliest alternatives as [text, log probability].
    logprobs: list[list[list[Any]]] | None = None

    def to_json(self) -> str:
        """As json.dumps writes the fields, in a third of its time. ASCII: lone surrogates, which SQLite refuses, survive as
        escapes."""
        request_id = "null" if self.request_id is None else quoted(self.request_id)
        logprobs = f', "logprobs": {json.dumps(self.logprobs)}' if self.logprobs else ""
        return (
            f'{{"text": {quoted(self.text)}, "finish": {quoted(self.finish)}, "max_tokens": {self.max_tokens:d}, '
            f'"prompt_tokens": {self.prompt_tokens:d}, "completion_tokens": {self.completion_tokens:d}, '
            f'"cached_tokens": {self.cached_tokens:d}, "request_id": {request_id}, '
            f'"cache_write_tokens": {self.cache_write_tokens:d}{logprobs}}}'
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError or TypeError for anything that `to_json` didn't write."""
        return cls(**json.loads(text))
