"""A response's JSON as an Answer, in either API's shape, live or from a batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pipeline.models.answer import Answer
from pipeline.models.provider_errors import Transient, UselessAnswer, snippet
from pipeline.models.usage import part, with_anthropic_tokens, with_openai_tokens
from pipeline.text import replace_surrogates

# Why an answer ends too early: our limit or the model's own; a failure at the server (vLLM, OpenRouter).
_CUT = ("length", "max_tokens", "model_length", "model_context_window_exceeded")
_SERVER_FAILED = ("error", "abort")
_MOST_LOGPROBS = 64


def read_openai(content: Any, model: str, max_tokens: int, request_id: str | None) -> Answer:
    """A chat completion as an answer. Raises UselessAnswer or Transient."""
    choices = part(content, "choices")
    if choices is None:
        raise _not_an_answer(content)
    logprobs = _logprobs(part(choices[0], "logprobs")) if choices else None
    counted = Answer("", "", max_tokens, request_id=request_id, logprobs=logprobs)
    counted = with_openai_tokens(counted, part(content, "usage"))
    if not choices:
        raise UselessAnswer("empty_choices", counted, model=model)
    message = choices[0]["message"]
    return _answer(counted, message.get("content"), choices[0]["finish_reason"], message.get("refusal"))


def read_anthropic(content: Any, model: str, max_tokens: int, request_id: str | None) -> Answer:
    """A message as an answer. Raises UselessAnswer or Transient."""
    if part(content, "content") is None:
        raise _not_an_answer(content)
    counted = with_anthropic_tokens(Answer("", "", max_tokens, request_id=request_id), content["usage"])
    text = "".join(block["text"] for block in content["content"] if block["type"] == "text")
    return _answer(counted, text, content.get("stop_reason"), None)


@contextmanager
def shaped(body: str) -> Iterator[None]:
    """Reads a response whose shape no SDK checks: what isn't where it belongs becomes a Transient that quotes `body`."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError):
        message = f"status 200 with JSON of another shape: {snippet(body)}"
        # What it cost isn't known.
        raise Transient("malformed_answer", message, maybe_billed=True) from None


def _not_an_answer(content: Any) -> Transient:
    """Status 200 with something else than the API's answer, as from proxies and login pages."""
    body = str(content)
    html = body.lstrip().startswith("<")
    refused = part(content, "error") is not None and part(content, "usage") is None
    # Anything else may be what is left of an answer.
    reason = "html_answer" if html else "malformed_answer"
    return Transient(reason, f"status 200 with {snippet(body)!r}", maybe_billed=not html and not refused)


def _logprobs(value: Any) -> list[list[list[Any]]] | None:
    """Of each of the first tokens, itself and then its alternatives. None where there are none, or none that can be read."""
    content = part(value, "content")
    if not isinstance(content, list):
        return None
    listed = ([token, *(part(token, "top_logprobs") or [])] for token in content[:_MOST_LOGPROBS])
    pairs = ([(part(t, "token"), part(t, "logprob")) for t in tokens] for tokens in listed)
    return [
        [[t, p] for t, p in pair if isinstance(t, str) and isinstance(p, float) and p <= 0] for pair in pairs
    ] or None


def _answer(counted: Answer, text: str | None, finish: str | None, refusal: str | None) -> Answer:
    """Only a complete or cut text is an answer; everything else, though paid for, is a reject of its own kind."""
    if refusal or finish == "refusal":
        raise UselessAnswer("refused", counted, answer=snippet(refusal or text or ""))
    if finish == "content_filter":
        raise UselessAnswer("content_filter", counted, answer=snippet(text or ""))
    if finish in _SERVER_FAILED:
        raise Transient("server_error", f"status 200, and the server gave up: {finish}", maybe_billed=True)
    if not text or not text.strip():
        raise UselessAnswer("empty_answer", counted, finish=finish)
    # Half a character, from a tokenizer cut in the middle of one: nothing downstream can store it.
    text = replace_surrogates(text)[0]
    return replace(counted, text=text, finish="length" if finish in _CUT else "stop")
