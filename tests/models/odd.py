"""Responses as no API documents them: what `told` says is said to every call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from pipeline.models.cost import Price
from pipeline.models.journal import Answer, Journal
from tests.loopback import LoopbackServer
from tests.models.asking import address, caught, model_at

SAID: dict[str, Any] = {}
OPENAI: dict[str, Any] = {
    "choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": "Hi."}}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2},
}
ANTHROPIC: dict[str, Any] = {
    "content": [{"type": "text", "text": "Hi."}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 5, "output_tokens": 2},
}


def choice(content: object, **more: object) -> dict[str, Any]:
    return OPENAI | {"choices": [{"finish_reason": "stop", "message": {"content": content}, **more}]}


async def say(http: web.Request) -> web.Response:
    await http.read()
    SAID["times"] += 1
    body = SAID["body"] if isinstance(SAID["body"], bytes) else json.dumps(SAID["body"]).encode()
    headers = {"content-type": "application/json"} | dict(SAID.get("headers", {}))
    return web.Response(status=SAID.get("status", 200), body=body, headers=headers)


def told(
    server: LoopbackServer,
    provider: str,
    body: object,
    journal: Journal,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Answer | Exception:
    """How a call of 200 tokens at a dollar per million ends, of two tries."""
    SAID.update(body=body, times=0, status=status, headers=headers or {})
    path = "odd/v1" if provider == "openai" else "odd"
    model = model_at(f"{address(server, 'anthropic')}/{path}", journal, provider, attempts=2)
    model.price = Price(1, 1, 1)
    return caught(model)
