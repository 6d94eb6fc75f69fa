"""The token counts of a response, as each API spells them. A server's counts are read with suspicion.

Of two readings the dearer counts: thoughts that are more than the answer were counted beside it, and a total above the sum
holds tokens that no other count has. A count that is missing or can't be one (a boolean, a text, a fraction, a negative
number) leaves the answer `uncounted`: it costs the most that its call was allowed, or what is readable, if that is more.
"""

import math
from dataclasses import replace
from typing import Any

from pipeline.models.answer import Answer

_MOST_TOKENS = 10**9


def with_openai_tokens(answer: Answer, usage: Any) -> Answer:
    """The answer with a chat completion's token counts."""
    counts = _Counts()
    prompt, completion = counts.needed(usage, "prompt_tokens"), counts.needed(usage, "completion_tokens")
    details, written_names = part(usage, "prompt_tokens_details"), ("cache_write_tokens", "cache_creation_tokens")
    cached = counts.discount(details, "cached_tokens")
    written = max(counts.further(details, name) for name in written_names)
    if cached + written > prompt:
        # Counted beside the prompt, or wrong: all of it is paid for in full.
        prompt, cached = prompt + cached + written, 0
    thought = counts.further(part(usage, "completion_tokens_details"), "reasoning_tokens")
    completion += _beside(completion, thought)
    completion = max(completion, counts.further(usage, "total_tokens") - prompt)
    return replace(
        answer,
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=thought,
        uncounted=counts.odd,
    )


def with_anthropic_tokens(answer: Answer, usage: Any) -> Answer:
    """The answer with a message's token counts."""
    counts = _Counts()
    cached = counts.further(usage, "cache_read_input_tokens")
    written = counts.further(usage, "cache_creation_input_tokens")
    completion = counts.needed(usage, "output_tokens")
    thought = counts.further(part(usage, "output_tokens_details"), "thinking_tokens")
    completion += _beside(completion, thought)
    return replace(
        answer,
        # Anthropic counts cached tokens apart; here, as with OpenAI, they are part of the prompt.
        prompt_tokens=counts.needed(usage, "input_tokens") + cached + written,
        completion_tokens=completion,
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=thought,
        uncounted=counts.odd,
    )


def part(value: Any, name: str) -> Any:
    """The value's member of that name; None when it has none, or is no JSON object."""
    return value.get(name) if isinstance(value, dict) else None


def _beside(completion: int, thoughts: int) -> int:
    """The thoughts' tokens that the completion's count can't hold."""
    return thoughts if thoughts > completion else 0


class _Counts:
    """Reads counts. odd: whether one of them can't be right."""

    def __init__(self) -> None:
        self.odd = False

    def needed(self, holder: Any, name: str) -> int:
        value = part(holder, name)
        return self._read(math.nan if value is None else value)

    def further(self, holder: Any, name: str) -> int:
        """0 where there is none."""
        return self._read(part(holder, name) or 0)

    def discount(self, holder: Any, name: str) -> int:
        """A count that makes the call cheaper: one that can't be right is no reason to pay more than the full price."""
        value = part(holder, name)
        return value if _is_count(value) else 0

    def _read(self, value: Any) -> int:
        if _is_count(value):
            return int(value)
        self.odd = True
        try:
            number = math.ceil(float(value))
        except (TypeError, ValueError, OverflowError):
            return 0
        return number if _is_count(number) and not isinstance(value, bool) else 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_TOKENS
