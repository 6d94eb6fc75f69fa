"""The real SDKs, pointed at a loopback server: how the tests here ask. Retries are off, as in the pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import anthropic
import openai

from tests.loopback.server import LoopbackProcess, LoopbackServer

Server = LoopbackServer | LoopbackProcess
PROVIDERS = ("openai", "anthropic")
BACKENDS = ("httpx2", "aiohttp")


def client_for(
    server: Server, provider: str, backend: str = "httpx2", *, key: str | None = None, timeout: float = 5.0
) -> openai.AsyncOpenAI | anthropic.AsyncAnthropic:
    """To be made inside a running loop, and closed there."""
    sdk = {"openai": openai, "anthropic": anthropic}[provider]
    settings: dict[str, Any] = {
        "api_key": key or server.key,
        "max_retries": 0,
        "timeout": timeout,
        "http_client": sdk.DefaultAioHttpClient() if backend == "aiohttp" else None,
    }
    if provider == "openai":
        return openai.AsyncOpenAI(base_url=server.openai_url, **settings)
    return anthropic.AsyncAnthropic(base_url=server.anthropic_url, **settings)


async def send(
    client: openai.AsyncOpenAI | anthropic.AsyncAnthropic, *turns: str, raw: bool = False, **params: Any
) -> Any:
    """`turns` alternate, the user's first. `raw=True` gives the response with its headers."""
    roles = ("user", "assistant")
    messages = [{"role": roles[index % 2], "content": text} for index, text in enumerate(turns)]
    params = {"model": "model-1", "messages": messages, **params}
    if isinstance(client, openai.AsyncOpenAI):
        completions = client.chat.completions.with_raw_response if raw else client.chat.completions
        return await completions.create(**params)
    params.setdefault("max_tokens", 1000)
    return await (client.messages.with_raw_response if raw else client.messages).create(**params)


def ask(
    server: Server, provider: str, *turns: str, backend: str = "httpx2", timeout: float = 5.0, **params: Any
) -> Any:
    """One call with a client of its own, start to end."""

    async def call() -> Any:
        async with client_for(server, provider, backend, timeout=timeout) as client:
            return await send(client, *turns, **params)

    return asyncio.run(call())


def ask_all(server: Server, provider: str, texts: Sequence[str], backend: str = "httpx2", **params: Any) -> list[Any]:
    """All at once with one client; an error stands in its answer's place."""

    async def calls() -> list[Any]:
        async with client_for(server, provider, backend) as client:
            return await asyncio.gather(*(send(client, text, **params) for text in texts), return_exceptions=True)

    return asyncio.run(calls())


def text_of(answer: Any) -> str | None:
    if hasattr(answer, "choices"):
        return answer.choices[0].message.content
    return "".join(block.text for block in answer.content)


def finish_of(answer: Any) -> str:
    return answer.choices[0].finish_reason if hasattr(answer, "choices") else answer.stop_reason
