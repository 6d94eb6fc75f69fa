"""The token counts of a response, as each API spells them. A server's counts are read with suspicion.

Of two readings the dearer counts: thoughts that are more than the answer were counted beside it, and a total above the sum
holds tokens that no other count has. A count that is missing or can't be one (a boolean, a text, a fraction, a negative
number) leaves the answer `uncounted`: it costs the most that its call was allowed, or what is readable, if that is more.
"""

import math
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pipeline.models.request import Answer

_MOST_TOKENS = 10**9
_MOST_DOLLARS = 10**6


def with_openai_tokens(answer: Answer, usage: Any) -> Answer:
    """The answer with a chat completion's token counts."""
    counts, details = _Counts(), part(usage, "prompt_tokens_details")
    prompt = counts.needed(usage, "prompt_tokens")
    cached = counts.discount(details, "cached_tokens")
    written = max(counts.further(details, name) for name in ("cache_write_tokens", "cache_creation_tokens"))
    if cached + written > prompt:
        # Counted beside the prompt, or wrong: all of it is paid for in full.
        prompt, cached = prompt + cached + written, 0
    completion = counts.needed(usage, "completion_tokens")
    thoughts = counts.further(part(usage, "completion_tokens_details"), "reasoning_tokens")
    answer = replace(answer, cost_usd=_dollars(part(usage, "cost")), cached_tokens=cached, cache_write_tokens=written)
    return counts.on(answer, prompt, completion, thoughts, counts.further(usage, "total_tokens"))


def with_anthropic_tokens(answer: Answer, usage: Any) -> Answer:
    """The answer with a message's token counts."""
    counts = _Counts()
    cached, written = (counts.further(usage, f"cache_{name}_input_tokens") for name in ("read", "creation"))
    # Anthropic counts cached tokens apart; here, as with OpenAI, they are part of the prompt.
    prompt = counts.needed(usage, "input_tokens") + cached + written
    completion = counts.needed(usage, "output_tokens")
    thoughts = counts.further(part(usage, "output_tokens_details"), "thinking_tokens")
    for_an_hour = min(written, counts.further(part(usage, "cache_creation"), "ephemeral_1h_input_tokens"))
    answer = replace(answer, cached_tokens=cached, cache_write_tokens=written, cache_hour_tokens=for_an_hour)
    return counts.on(answer, prompt, completion, thoughts)


def part(value: Any, name: str) -> Any:
    """The value's member of that name; None when it has none, or is no JSON object."""
    return value.get(name) if isinstance(value, dict) else None


def _dollars(cost: Any) -> float:
    """What the server says that a call cost: OpenRouter as a number, Perplexity by its parts and in all."""
    cost = part(cost, "total_cost") if isinstance(cost, dict) else cost
    with suppress(TypeError, ValueError):
        return dollars if not isinstance(cost, bool) and 0 < (dollars := float(cost)) < _MOST_DOLLARS else 0.0
    return 0.0


class _Counts:
    """Reads counts. odd: whether one of them can't be right."""

    def __init__(self) -> None:
        self.odd = False

    def needed(self, holder: Any, name: str) -> int:
        return self.further(holder, name, missing=math.nan)

    def further(self, holder: Any, name: str, missing: float = 0) -> int:
        value = part(holder, name)
        value = missing if value is None else value
        if not _is_count(value):
            self.odd = True
            with suppress(TypeError, ValueError, OverflowError):
                value = 0 if isinstance(value, bool) else math.ceil(float(value))
        return value if _is_count(value) else 0

    def discount(self, holder: Any, name: str) -> int:
        """A count that makes the call cheaper: one that can't be right is no reason to pay more than the full price."""
        value = part(holder, name)
        return value if _is_count(value) else 0

    def on(self, answer: Answer, prompt: int, completion: int, thoughts: int, total: int = 0) -> Answer:
        """The answer with its counts. Thoughts that the completion's count can't hold were counted beside it."""
        completion = max(completion + (thoughts if thoughts > completion else 0), total - prompt)
        counted = replace(answer, prompt_tokens=prompt, completion_tokens=completion, reasoning_tokens=thoughts)
        return replace(counted, uncounted=self.odd)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_TOKENS
