"""The token counts of a response, as each API spells them. A server's counts are read with suspicion."""

from dataclasses import replace
from typing import Any

from pipeline.models.answer import Answer

_MOST_TOKENS = 10**9


def with_openai_tokens(answer: Answer, usage: Any) -> Answer:
    """The answer with a chat completion's token counts. All 0, which stands for unknown, when one is no count."""
    prompt, completion = _tokens(usage, "prompt_tokens", "completion_tokens")
    cached = min(prompt, *_tokens(part(usage, "prompt_tokens_details"), "cached_tokens"))
    (thought,) = _tokens(part(usage, "completion_tokens_details"), "reasoning_tokens")
    return replace(
        answer,
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        reasoning_tokens=thought,
    )


def with_anthropic_tokens(answer: Answer, usage: Any) -> Answer:
    """The answer with a message's token counts. All 0, which stands for unknown, when one is no count."""
    prompt, completion = _tokens(usage, "input_tokens", "output_tokens")
    (cached,), (written,) = _tokens(usage, "cache_read_input_tokens"), _tokens(usage, "cache_creation_input_tokens")
    # Anthropic counts cached tokens apart; here, as with OpenAI, they are part of the prompt.
    prompt += cached + written
    return replace(
        answer,
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        cache_write_tokens=written,
    )


def part(value: Any, name: str) -> Any:
    """The value's member of that name; None when it has none, or is no JSON object."""
    return value.get(name) if isinstance(value, dict) else None


def _tokens(usage: Any, *names: str) -> tuple[int, ...]:
    """The server's counts of these names. All 0, which stands for unknown, when one of them is no count."""
    counts = [part(usage, name) for name in names]
    known = all(isinstance(n, int) and 0 <= n < _MOST_TOKENS for n in counts)
    return tuple(counts) if known else (0,) * len(names)
