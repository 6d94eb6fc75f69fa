"""The two SDKs, each behind one coroutine: request in, Answer out, every failure as one of our own exceptions.

Both SDKs come from one generator, so their exceptions share names and attributes; `_translate` serves both. A client
belongs to one event loop: the shared one of `loop.py`.
"""

from __future__ import annotations

import asyncio
import email.utils
import os
import re
import time
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.errors import ProviderStopped, RowReject
from pipeline.models.journal import Answer

if TYPE_CHECKING:
    from pipeline.models.chat import ChatRequest

# That API never had the last two; since its version 2026-10-21 it answers 400 to sampling parameters, at any value.
_NOT_ANTHROPIC = ("temperature", "top_p", "seed", "response_format")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TRANSIENT = {408: "timed_out", 409: "server_error", 429: "rate_limited"}


class Transient(Exception):
    """Worth another try. `reason` becomes the row's reject reason when tries run out; `retry_after` is in seconds."""

    def __init__(self, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after


class Provider(Protocol):
    async def complete(self, request: ChatRequest) -> Answer: ...

    async def close(self) -> None: ...


class OpenAIProvider:
    """OpenAI's Chat Completions API, or any server that speaks it. `official`: the address is OpenAI's own."""

    def __init__(self, model: str, base_url: str | None, api_key: str, timeout_s: float, *, official: bool) -> None:
        import openai

        self._sdk = openai
        self._model = model
        # The SDKs' own time-outs count silence only: a server that sends a byte now and then would hold us for ever.
        self._timeout_s = timeout_s
        # OpenAI's newer models refuse the old name, most other servers know only the old one.
        self._limit = "max_completion_tokens" if official else "max_tokens"
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key,
            timeout=timeout_s,
            max_retries=0,
            http_client=openai.DefaultAioHttpClient(),
        )

    async def close(self) -> None:
        await self._client.close()

    async def complete(self, request: ChatRequest) -> Answer:
        params = dict(request.params)
        arguments = {"model": self._model, "messages": request.messages, self._limit: request.max_tokens, **params}
        try:
            async with asyncio.timeout(self._timeout_s):
                raw = await self._client.chat.completions.with_raw_response.create(**arguments)
                completion: Any = raw.parse()
        except Exception as error:
            raise _translate(self._sdk, error, self._model) from None
        choices = getattr(completion, "choices", None)
        if choices is None:
            raise _not_an_answer(completion)
        if not choices:
            raise RowReject("empty_choices", model=self._model)
        choice = choices[0]
        usage = completion.usage
        details = getattr(usage, "prompt_tokens_details", None)
        return _answer(
            text=choice.message.content,
            finish=choice.finish_reason,
            refusal=getattr(choice.message, "refusal", None),
            max_tokens=request.max_tokens,
            prompt_tokens=usage.prompt_tokens if usage else 0,
            completion_tokens=usage.completion_tokens if usage else 0,
            cached_tokens=getattr(details, "cached_tokens", None) or 0,
            request_id=raw.headers.get("x-request-id"),
        )


class AnthropicProvider:
    """Anthropic's Messages API."""

    def __init__(self, model: str, base_url: str | None, api_key: str, timeout_s: float) -> None:
        import anthropic

        self._sdk = anthropic
        self._model = model
        # The SDKs' own time-outs count silence only: a server that sends a byte now and then would hold us for ever.
        self._timeout_s = timeout_s
        self._client = anthropic.AsyncAnthropic(
            base_url=base_url,
            api_key=api_key,
            timeout=timeout_s,
            max_retries=0,
            http_client=anthropic.DefaultAioHttpClient(),
        )

    async def close(self) -> None:
        await self._client.close()

    async def complete(self, request: ChatRequest) -> Answer:
        params = {k: v for k, v in request.params.items() if k not in _NOT_ANTHROPIC}
        system = "\n\n".join(m["content"] for m in request.messages if m["role"] == "system")
        turns = [m for m in request.messages if m["role"] != "system"]
        if system:
            params["system"] = system
        try:
            async with asyncio.timeout(self._timeout_s):
                raw = await self._client.messages.with_raw_response.create(
                    model=self._model,
                    messages=turns,  # type: ignore[arg-type]
                    max_tokens=request.max_tokens,
                    **params,
                )
                message: Any = await raw.parse()
        except Exception as error:
            raise _translate(self._sdk, error, self._model) from None
        if getattr(message, "content", None) is None:
            raise _not_an_answer(message)
        usage = message.usage
        cached = usage.cache_read_input_tokens or 0
        return _answer(
            text="".join(block.text for block in message.content if block.type == "text"),
            finish=message.stop_reason,
            refusal=None,
            max_tokens=request.max_tokens,
            # Anthropic counts cached tokens apart; here, as with OpenAI, they are part of the prompt.
            prompt_tokens=usage.input_tokens + cached + (usage.cache_creation_input_tokens or 0),
            completion_tokens=usage.output_tokens,
            cached_tokens=cached,
            request_id=raw.headers.get("request-id"),
        )


def _answer(
    *, text: str | None, finish: str | None, refusal: str | None, max_tokens: int, request_id: str | None, **usage: int
) -> Answer:
    """Only a complete or cut text is an answer; everything else is a reject of its own kind."""
    if refusal or finish == "refusal":
        raise RowReject("refused", answer=snippet(refusal or text or ""))
    if finish == "content_filter":
        raise RowReject("content_filter", answer=snippet(text or ""))
    if not text or not text.strip():
        raise RowReject("empty_answer", finish=finish)
    # Half a character, from a tokenizer cut in the middle of one: nothing downstream can store it.
    text = _SURROGATE.sub("\ufffd", text)
    cut = finish in ("length", "max_tokens")
    return Answer(text, "length" if cut else "stop", max_tokens, request_id=request_id, **usage)


def _not_an_answer(parsed: Any) -> Transient:
    """Status 200 with something else than the API's answer, as proxies and login pages give; the SDKs let it through."""
    body = parsed if isinstance(parsed, str) else str(getattr(parsed, "model_extra", None) or "")
    reason = "html_answer" if body.lstrip().startswith("<") else "malformed_answer"
    return Transient(reason, f"status 200 with {snippet(body)!r}")


def _translate(sdk: ModuleType, error: Exception, model: str) -> Exception:
    """Our exception for whatever the SDK raised. By status code, not class: some statuses have no class of their own.

    SDK exceptions end here: they hold the request, and with it the key.
    """
    status = getattr(error, "status_code", None)
    if isinstance(error, sdk.APIStatusError) and isinstance(status, int):
        return _from_status(status, error, model)
    if isinstance(error, ValueError):  # json.JSONDecodeError, bare
        return Transient("malformed_answer", "status 200 with broken JSON")
    if isinstance(error, sdk.APIResponseValidationError):
        return Transient("malformed_answer", "status 200 with JSON of another shape")
    # A refused connection, too, comes as APITimeoutError from one of the backends: the chain of causes tells.
    if any(isinstance(cause, TimeoutError) for cause in _causes(error)):
        return Transient("timed_out", "no answer within the time-out")
    if isinstance(error, sdk.APIError):
        return Transient("connection_lost", snippet(f"connection: {error.__cause__ or error}"))
    return error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _from_status(status: int, error: Any, model: str) -> Exception:
    code = getattr(error, "code", None) or getattr(error, "type", None)
    message = snippet(f"{code or ''} {_message(error)}")
    if status in (401, 402, 403) or code == "insufficient_quota":
        return ProviderStopped(
            f"{model}: the provider refuses every call (status {status}: {message}). Check the API key in the environment, "
            "its access to this model and its credit, then run the same command again: nothing that was paid for is lost"
        )
    if status in _TRANSIENT or status >= 500:
        return Transient(
            _TRANSIENT.get(status, "server_error"), f"status {status}: {message}", retry_after(error.response.headers)
        )
    return RowReject("bad_request", model=model, status=status, error=message)


def _message(error: Any) -> str:
    """The provider's own words, without the body that some SDKs put around them."""
    body = error.body if isinstance(error.body, dict) else {}
    inner = body.get("error", body)
    return str(inner.get("message") or error.message) if isinstance(inner, dict) else str(error.message)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks us to wait: `retry-after-ms`, `retry-after` as seconds or as an HTTP date."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return max(0.0, float(milliseconds) / 1000)
        text = headers.get("retry-after")
        if not text:
            return None
        if text.strip().replace(".", "", 1).isdigit():
            return float(text)
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def snippet(text: str, length: int = 160) -> str:
    """One short line of a text that may be anything, also a gateway's that repeats the key it was given."""
    for name, value in os.environ.items():
        if name.endswith(("_API_KEY", "_TOKEN")) and len(value) >= 8:
            text = text.replace(value, "[key]")
    line = " ".join(_SURROGATE.sub("\ufffd", text).split())
    return line if len(line) <= length else line[: length - 1] + "…"
