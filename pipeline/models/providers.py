"""The two SDKs, each behind one coroutine: request in, Answer out, every failure as one of our own exceptions.

A client belongs to one event loop: the shared one of `event_loop.py`.
"""

import asyncio
import gc
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from types import ModuleType
from typing import Any

from pipeline.config.model_names import OPENAI_URL
from pipeline.errors import RowReject
from pipeline.models.adaptation import apply_changes, refused
from pipeline.models.error_words import seconds_until
from pipeline.models.keys import Access, is_loopback, usable_proxy
from pipeline.models.limiter import KINDS
from pipeline.models.provider_errors import Transient, translate
from pipeline.models.reading import read_anthropic, read_openai, shaped
from pipeline.models.request import Answer, ChatRequest, OnQuotas, Provider, Quota

# Anthropic's API never had the last ones, and spells a schema its own way; since its version 2026-10-21 it answers 400 to
# sampling parameters, at any value.
_NOT_ANTHROPIC = ("temperature", "top_p", "seed", "response_format", "logprobs", "top_logprobs")
# Self-hosted servers often take any key; the SDK requires one.
_NO_KEY = "no-key"
_MOST_BYTES = 8_000_000
# No provider's limit is longer than a month; waiting for one would stop a run for ever.
_LONGEST_S = 32 * 86_400.0
# A token of thoughts, from a slow server.
_SECONDS_A_THOUGHT = 0.05


class SdkProvider(Provider):
    """What both SDKs have in common. `client` is the SDK's class, `endpoint` the resource whose `create` sends a request."""

    request_id_header: str
    reader: Callable[[Any, str, int, str | None], Answer]
    endpoint: Any

    def __init__(self, sdk: ModuleType, client: str, model: str, access: Access, timeout_s: float) -> None:
        self.model = model
        self._sdk = sdk
        self._access = access
        with usable_proxy():
            trust_env, hooks = not is_loopback(access.base_url), {"response": [limit_body]}
            http_client = sdk.DefaultAioHttpClient(trust_env=trust_env, event_hooks=hooks, follow_redirects=False)
        self.client = getattr(sdk, client)(
            base_url=access.base_url,
            api_key=access.api_key or _NO_KEY,
            timeout=timeout_s,
            max_retries=0,
            http_client=http_client,
        )
        if not access.own:
            # The SDKs send these from the environment to any address.
            self.client.organization = self.client.project = self.client.admin_api_key = self.client.auth_token = None
            self.client._custom_headers = {}
        # The SDKs' own time-outs count silence only: a server that sends a byte now and then would hold us for ever.
        self._timeout_s = timeout_s

    @cached_property
    def _create(self) -> Any:
        # The SDKs wrap all methods of a resource at each access.
        return self.endpoint.with_raw_response.create

    async def close(self) -> None:
        await self.client.close()

    async def complete(self, request: ChatRequest, on_quotas: OnQuotas) -> Answer:
        arguments = self.sent(request)
        timeout_s = self._timeout_s + request.thought_tokens * _SECONDS_A_THOUGHT
        try:
            async with asyncio.timeout(timeout_s):
                response = (await self._create(**arguments, timeout=timeout_s)).http_response
                content = _content(response)
        except Exception as error:
            refusal = getattr(error, "response", None)
            if refusal is not None:
                on_quotas(read_quotas(refusal.headers))
            raise refused(self.translate(error), refusal.text if refusal is not None else "", arguments) from None
        _freeze(self._sdk)
        on_quotas(read_quotas(response.headers))
        try:
            with shaped(response.text):
                return self.read(content, request.max_tokens, response.headers.get(self.request_id_header))
        except RowReject as reject:
            raise refused(reject, response.text, arguments) from None

    def sent(self, request: ChatRequest) -> dict[str, Any]:
        """The arguments of `create`, as this server takes them."""
        return apply_changes(self.arguments(request), request.changes)

    def translate(self, error: Exception) -> Exception:
        return self._access.explained(translate(self._sdk, error, self.model), getattr(error, "status_code", None))

    @abstractmethod
    def arguments(self, request: ChatRequest) -> dict[str, Any]:
        """The arguments of `create`."""

    def read(self, content: Any, max_tokens: int, request_id: str | None) -> Answer:
        """The JSON of a response as an answer. Raises RowReject or Transient."""
        return self.reader(content, self.model, max_tokens, request_id)


class OpenAIProvider(SdkProvider):
    """OpenAI's Chat Completions API, or any server that speaks it."""

    request_id_header = "x-request-id"
    reader = staticmethod(read_openai)

    def __init__(self, model: str, access: Access, timeout_s: float) -> None:
        import openai

        super().__init__(openai, "AsyncOpenAI", model, access, timeout_s)
        self.endpoint = self.client.chat.completions
        # OpenAI's newer models refuse the old name, most other servers know only the old one.
        self._limit = "max_completion_tokens" if access.base_url == OPENAI_URL else "max_tokens"

    def arguments(self, request: ChatRequest) -> dict[str, Any]:
        return {"model": self.model, "messages": request.messages, self._limit: request.max_tokens, **request.params}


class AnthropicProvider(SdkProvider):
    """Anthropic's Messages API."""

    request_id_header = "request-id"
    reader = staticmethod(read_anthropic)

    def __init__(self, model: str, access: Access, timeout_s: float) -> None:
        import anthropic

        super().__init__(anthropic, "AsyncAnthropic", model, access, timeout_s)
        self.endpoint = self.client.messages

    def arguments(self, request: ChatRequest) -> dict[str, Any]:
        params = {k: v for k, v in request.params.items() if k not in _NOT_ANTHROPIC}
        system = "\n\n".join(m["content"] for m in request.messages if m["role"] == "system")
        turns = [m for m in request.messages if m["role"] != "system"]
        if system:
            params["system"] = system
        if schema := (request.params.get("response_format") or {}).get("json_schema"):
            form = {"type": "json_schema", "schema": schema["schema"]}
            params["output_config"] = {**params.get("output_config", {}), "format": form}
        return {"model": self.model, "messages": turns, "max_tokens": request.max_tokens, **params}


@cache
def _freeze(sdk: ModuleType) -> None:
    """Once, after the first call: take what an SDK created for it out of the garbage collector's sight, as it stays."""
    gc.freeze()


def read_quotas(headers: Mapping[str, str]) -> dict[str, Quota]:
    """The quotas in a response's headers (`x-ratelimit-*` is OpenAI's), by kind, without unreadable ones."""
    quotas: dict[str, Quota] = {}
    if not any("ratelimit" in name.lower() for name in headers):
        return quotas
    for kind in KINDS:
        for pattern in ("x-ratelimit-{part}-{kind}", "anthropic-ratelimit-{kind}-{part}"):
            values = [headers.get(pattern.format(part=part, kind=kind)) for part in ("limit", "remaining", "reset")]
            if quota := _quota(*values):
                quotas[kind] = quota
                break
    return quotas


def _quota(limit: str | None, remaining: str | None, reset: str | None) -> Quota | None:
    try:
        most, left = float(limit or ""), max(0.0, float(remaining or ""))
    except ValueError:
        return None
    if not 0 < most < math.inf or not left < math.inf:
        return None
    rate = most / 60
    seconds = seconds_until(reset)
    if seconds and seconds < _LONGEST_S:
        # A limit that looks like a minute's may be a day's: the time until it is full again says so. A bucket that holds
        # less than a minute's worth looks faster than it is, so the slower of the two rates counts.
        rate = min(rate, max(most - left, 1.0) / seconds)
        return Quota(rate, left, min(most, left + rate * seconds))
    return Quota(rate, left, max(left, 1.0))


async def limit_body(response: Any) -> None:
    """A hook of httpx's clients: reads an answer's body here, and no further than any answer is long. Raises Transient.

    Compressed, a megabyte can hold a gigabyte.
    """
    # Files come by GET.
    if response.request.method != "POST":
        return
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > _MOST_BYTES:
            await response.aclose()
            raise Transient("malformed_answer", f"a response of more than {_MOST_BYTES:,} bytes", maybe_billed=True)
    # As its own `aread` would.
    response._content = bytes(body)


def _content(response: Any) -> Any:
    """The body's JSON, whatever its content type; the text when a proxy or a login page answers instead."""
    try:
        return response.json()
    except ValueError:
        if "json" in response.headers.get("content-type", ""):
            raise
        return response.text
