"""The two SDKs, each behind one coroutine: request in, Answer out, every failure as one of our own exceptions.

A client belongs to one event loop: the shared one of `loop.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.models.journal import Answer
from pipeline.models.provider_errors import (
    SURROGATE,
    Transient,
    UselessAnswer,
    not_an_answer,
    shaped,
    snippet,
    translate,
)

if TYPE_CHECKING:
    from pipeline.models.chat import ChatRequest

# That API never had the last ones, and spells a schema its own way; since its version 2026-10-21 it answers 400 to sampling
# parameters, at any value.
_NOT_ANTHROPIC = ("temperature", "top_p", "seed", "response_format", "logprobs", "top_logprobs")
# Why an answer ends too early: our limit, or the model's own; something broke at the server (vLLM, OpenRouter).
_CUT = ("length", "max_tokens", "model_length", "model_context_window_exceeded")
_GIVEN_UP = ("error", "abort")
_MOST_TOKENS = 10**9
_MOST_LOGPROBS = 64
# Gets the headers of whatever the server answers to the call of the current task.
on_headers: ContextVar[Callable[[Mapping[str, str]], None] | None] = ContextVar("on_headers", default=None)


class Provider(Protocol):
    """Who answers. `batched`: it gathers requests and answers in hours, so no limit on calls at a time applies to it."""

    batched: bool

    async def complete(self, request: ChatRequest) -> Answer: ...

    async def close(self) -> None: ...


class Batched(Provider, Protocol):
    """A provider that gathers requests: each has a name, under which money may be held for it."""

    def custom_id(self, request: ChatRequest) -> str: ...


class OpenAIProvider:
    """OpenAI's Chat Completions API, or any server that speaks it. `official`: the address is OpenAI's own."""

    batched = False

    def __init__(self, model: str, base_url: str | None, api_key: str, timeout_s: float, *, official: bool) -> None:
        import openai

        self._sdk = openai
        self.model = model
        # The SDKs' own time-outs count silence only: a server that sends a byte now and then would hold us for ever.
        self._timeout_s = timeout_s
        # OpenAI's newer models refuse the old name, most other servers know only the old one.
        self._limit = "max_completion_tokens" if official else "max_tokens"
        self.client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key,
            timeout=timeout_s,
            max_retries=0,
            http_client=openai.DefaultAioHttpClient(),
        )
        self.url = str(self.client.base_url.join("chat/completions"))

    async def close(self) -> None:
        await self.client.close()

    async def complete(self, request: ChatRequest) -> Answer:
        completion, response = await _posted(self, self.arguments(request))
        with shaped(response):
            return self.read(completion, request.max_tokens, response.headers.get("x-request-id"))

    def arguments(self, request: ChatRequest) -> dict[str, Any]:
        """The request's body, by the names of the SDK's method."""
        return {"model": self.model, "messages": request.messages, self._limit: request.max_tokens, **request.params}

    def translate(self, error: Exception) -> Exception:
        return translate(self._sdk, error, self.model)

    def read(self, completion: Any, max_tokens: int, request_id: str | None) -> Answer:
        """The JSON of a completion as an answer. Raises RowReject or Transient."""
        choices = _part(completion, "choices")
        if choices is None:
            raise not_an_answer(completion)
        usage = _part(completion, "usage")
        details = _part(usage, "prompt_tokens_details")
        prompt, answer = _tokens(usage, "prompt_tokens", "completion_tokens")
        counted = Answer(
            "",
            "",
            max_tokens,
            prompt_tokens=prompt,
            completion_tokens=answer,
            cached_tokens=min(prompt, *_tokens(details, "cached_tokens")),
            request_id=request_id,
            logprobs=_logprobs(_part(choices[0], "logprobs")) if choices else None,
        )
        if not choices:
            raise UselessAnswer("empty_choices", counted, model=self.model)
        message = choices[0]["message"]
        return _answer(counted, message.get("content"), choices[0]["finish_reason"], message.get("refusal"))


class AnthropicProvider:
    """Anthropic's Messages API."""

    batched = False

    def __init__(self, model: str, base_url: str | None, api_key: str, timeout_s: float) -> None:
        import anthropic

        self._sdk = anthropic
        self.model = model
        # The SDKs' own time-outs count silence only: a server that sends a byte now and then would hold us for ever.
        self._timeout_s = timeout_s
        self.client = anthropic.AsyncAnthropic(
            base_url=base_url,
            api_key=api_key,
            timeout=timeout_s,
            max_retries=0,
            http_client=anthropic.DefaultAioHttpClient(),
        )
        self.url = str(self.client.base_url.join("v1/messages"))

    async def close(self) -> None:
        await self.client.close()

    async def complete(self, request: ChatRequest) -> Answer:
        message, response = await _posted(self, self.arguments(request))
        with shaped(response):
            return self.read(message, request.max_tokens, response.headers.get("request-id"))

    def arguments(self, request: ChatRequest) -> dict[str, Any]:
        """The request's body, by the names of the SDK's method."""
        params = {k: v for k, v in request.params.items() if k not in _NOT_ANTHROPIC}
        system = "\n\n".join(m["content"] for m in request.messages if m["role"] == "system")
        turns = [m for m in request.messages if m["role"] != "system"]
        if system:
            params["system"] = system
        if schema := (request.params.get("response_format") or {}).get("json_schema"):
            params["output_config"] = {"format": {"type": "json_schema", "schema": schema["schema"]}}
        return {"model": self.model, "messages": turns, "max_tokens": request.max_tokens, **params}

    def translate(self, error: Exception) -> Exception:
        return translate(self._sdk, error, self.model)

    def read(self, message: Any, max_tokens: int, request_id: str | None) -> Answer:
        """The JSON of a message as an answer. Raises RowReject or Transient."""
        if _part(message, "content") is None:
            raise not_an_answer(message)
        usage = message["usage"]
        prompt, answer = _tokens(usage, "input_tokens", "output_tokens")
        (cached,), (written,) = _tokens(usage, "cache_read_input_tokens"), _tokens(usage, "cache_creation_input_tokens")
        counted = Answer(
            "",
            "",
            max_tokens,
            # Anthropic counts cached tokens apart; here, as with OpenAI, they are part of the prompt.
            prompt_tokens=prompt + cached + written,
            completion_tokens=answer,
            cached_tokens=cached,
            cache_write_tokens=written,
            request_id=request_id,
        )
        text = "".join(block["text"] for block in message["content"] if block["type"] == "text")
        return _answer(counted, text, message.get("stop_reason"), None)


def _part(told: Any, name: str) -> Any:
    """What an object of the answer has by that name; None when it has none, or is none."""
    return told.get(name) if isinstance(told, dict) else None


def _tokens(usage: Any, *names: str) -> tuple[int, ...]:
    """Counts that belong together, as the server tells them. All 0, which stands for unknown, when one is no count."""
    counts = [_part(usage, name) for name in names]
    known = all(isinstance(n, int) and 0 <= n < _MOST_TOKENS for n in counts)
    return tuple(counts) if known else (0,) * len(names)


def _logprobs(told: Any) -> list[list[list[Any]]] | None:
    """Of the first tokens each: itself, then its alternatives. None where a server gave none, or none that can be read."""
    content = _part(told, "content")
    if not isinstance(content, list):
        return None
    listed = ([token, *(_part(token, "top_logprobs") or [])] for token in content[:_MOST_LOGPROBS])
    pairs = ([(_part(t, "token"), _part(t, "logprob")) for t in tokens] for tokens in listed)
    return [
        [[t, p] for t, p in pair if isinstance(t, str) and isinstance(p, float) and p <= 0] for pair in pairs
    ] or None


def _answer(counted: Answer, text: str | None, finish: str | None, refusal: str | None) -> Answer:
    """Only a complete or cut text is an answer; everything else, though paid for, is a reject of its own kind."""
    if refusal or finish == "refusal":
        raise UselessAnswer("refused", counted, answer=snippet(refusal or text or ""))
    if finish == "content_filter":
        raise UselessAnswer("content_filter", counted, answer=snippet(text or ""))
    if finish in _GIVEN_UP:
        raise Transient("server_error", f"status 200, and the server gave up: {finish}", maybe_billed=True)
    if not text or not text.strip():
        raise UselessAnswer("empty_answer", counted, finish=finish)
    # Half a character, from a tokenizer cut in the middle of one: nothing downstream can store it.
    text = SURROGATE.sub("\ufffd", text)
    return replace(counted, text=text, finish="length" if finish in _CUT else "stop")


async def _posted(provider: OpenAIProvider | AnthropicProvider, arguments: dict[str, Any]) -> tuple[Any, Any]:
    """The answer's JSON, or the text of what isn't JSON, and the response that it came in.

    `client.post` is the SDKs' documented way to send a body as it stands. Their typed methods do the same, and walk request and
    answer by their type hints on the way, without a check of their shape: a third of the CPU time that a call then takes.
    """
    import httpx2

    body = {**arguments, **arguments.get("extra_body", {})}
    body.pop("extra_body", None)
    try:
        async with asyncio.timeout(provider._timeout_s):
            response = await provider.client.post(provider.url, cast_to=httpx2.Response, body=body)
            content = _content(response)
    except Exception as error:
        _hear(error)
        raise provider.translate(error) from None
    _hear(response)
    return content, response


def _content(response: Any) -> Any:
    """The body's JSON, whatever type it is said to have; the text of what a proxy or a login page says instead."""
    try:
        return response.json()
    except ValueError:
        if "json" in response.headers.get("content-type", ""):
            raise
        return response.text


def _hear(answered: Any) -> None:
    """Pass on the headers of a response, or of the one that an SDK's exception holds."""
    headers = getattr(answered, "headers", None) or getattr(getattr(answered, "response", None), "headers", None)
    listener = on_headers.get()
    if listener and headers is not None:
        listener(headers)
