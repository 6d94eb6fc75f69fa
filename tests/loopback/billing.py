"""Servers whose token counts can't be trusted, at /KIND/v1, each with books of its own.

A call's line in the books is what its server bills at the dearest reading of the counts that it sent; where they mean nothing,
or no answer arrived, the prompt and the whole of max_tokens.
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from aiohttp import web

from tests.loopback.chat import count_tokens
from tests.loopback.engine import Engine

TEXT = "Twenty tokens of four characters each, so that the count of the text is exact.  "


class Sizes(NamedTuple):
    """Tokens of a call. honest: of the answer as it is; number: of the call at this server, from 1."""

    prompt: int
    honest: int
    limit: int
    number: int


class Line(NamedTuple):
    """The `usage` that is sent, and the tokens that are billed."""

    usage: Any
    prompt: int
    completion: int


Kind = Callable[[Sizes], Line]


def _openai(prompt: Any, completion: Any, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, **more}


def _worthless(usage: Callable[[Sizes], Any]) -> Kind:
    """Counts that mean nothing."""
    return lambda s: Line(usage(s), s.prompt, s.limit)


def _above(times: Callable[[Sizes], float]) -> Kind:
    """More than max_tokens, by so many times."""

    def kind(s: Sizes) -> Line:
        completion = math.ceil(s.limit * times(s))
        return Line(_openai(s.prompt, completion), s.prompt, completion)

    return kind


# Each keeps to the limits of a call, however it counts.
WITHIN: dict[str, Kind] = {
    "honest": lambda s: Line(_openai(s.prompt, s.honest), s.prompt, s.honest),
    "booleans": _worthless(lambda s: _openai(True, True)),
    "false": _worthless(lambda s: _openai(False, False)),
    "negative": _worthless(lambda s: _openai(-s.prompt, -s.honest)),
    "nan": _worthless(lambda s: _openai(math.nan, math.nan)),
    "infinite": _worthless(lambda s: _openai(math.inf, -math.inf)),
    "fractions": _worthless(lambda s: _openai(s.prompt + 0.5, 1e-9)),
    "texts": _worthless(lambda s: _openai(str(s.prompt), "few")),
    "lists": _worthless(lambda s: _openai([s.prompt], {"tokens": 1})),
    "absurd": _worthless(lambda s: _openai(10**30, 10**12)),
    "null": _worthless(lambda s: None),
    "empty": _worthless(lambda s: {}),
    "half": _worthless(lambda s: {"prompt_tokens": s.prompt}),
    "zeros": _worthless(lambda s: _openai(0, 0)),
    "no_prompt": _worthless(lambda s: _openai(0, s.honest)),
    "no_completion": _worthless(lambda s: _openai(s.prompt, 0)),
    "ones": _worthless(lambda s: _openai(1, 1)),
    "cached_beyond": lambda s: Line(
        _openai(5, s.honest, prompt_tokens_details={"cached_tokens": s.prompt + 6}), s.prompt + 11, s.honest
    ),
    "cached_odd": lambda s: Line(
        _openai(s.prompt, s.honest, prompt_tokens_details={"cached_tokens": -(10**6)}), s.prompt, s.honest
    ),
    "written": _worthless(lambda s: _openai(s.prompt, s.honest, prompt_tokens_details={"cache_write_tokens": True})),
    "total_beyond": lambda s: Line(_openai(s.prompt, s.honest, total_tokens=s.prompt + s.limit), s.prompt, s.limit),
    "thoughts_beside": lambda s: Line(
        _openai(s.prompt, s.honest, completion_tokens_details={"reasoning_tokens": s.limit - s.honest}),
        s.prompt,
        s.limit,
    ),
}
# These bill more than a call allows.
ABOVE: dict[str, Kind] = {
    "twice": _above(lambda s: 2),
    "tenfold": _above(lambda s: 10),
    "at_last": _above(lambda s: 1 if s.number < 15 else 4),
    "growing": _above(lambda s: 1.1**s.number),
    "prompt": lambda s: Line(_openai(50 * s.prompt, s.honest), 50 * s.prompt, s.honest),
    "text_above": lambda s: Line(_openai(s.prompt, str(3 * s.limit)), s.prompt, 3 * s.limit),
    "total_above": lambda s: Line(_openai(s.prompt, 1, total_tokens=s.prompt + 3 * s.limit), s.prompt, 3 * s.limit),
    "thoughts_above": lambda s: Line(
        _openai(s.prompt, s.honest, completion_tokens_details={"reasoning_tokens": 3 * s.limit}),
        s.prompt,
        s.honest + 3 * s.limit,
    ),
    "cached_above": lambda s: Line(
        _openai(s.prompt, s.honest, prompt_tokens_details={"cached_tokens": 40 * s.prompt}), 41 * s.prompt, s.honest
    ),
    "error_above": _above(lambda s: 3),
    "refused_above": _above(lambda s: 3),
}
# The answer never arrives, or not whole.
DROPPED = ("reset", "half_body", "hang", "408", "502", "504", "524", "500_timed_out", "no_body", "cut_json", "cut_text")
_FINISH = {"error_above": "error", "refused_above": "content_filter"}


class Books:
    """What each server has billed, in tokens: (prompt, completion) a call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.calls: dict[str, list[tuple[int, int]]] = {}

    def extend(self, app: web.Application, engine: Engine) -> None:
        app.router.add_post("/{kind}/v1/chat/completions", self._openai)
        app.router.add_post("/{kind}/v1/messages", self._anthropic)

    def dollars(self, kind: str, input_: float, output: float) -> list[float]:
        """A million tokens cost so much."""
        return [(prompt * input_ + completion * output) / 1e6 for prompt, completion in self.calls.get(kind, [])]

    def _enter(self, kind: str, body: dict[str, Any]) -> Line:
        prompt = sum(count_tokens(str(message["content"])) + 4 for message in body["messages"])
        limit = int(body.get("max_completion_tokens") or body["max_tokens"])
        with self._lock:
            lines = self.calls.setdefault(kind, [])
            sizes = Sizes(prompt, count_tokens(TEXT), limit, len(lines) + 1)
            line = {**WITHIN, **ABOVE}.get(kind, _worthless(lambda s: None))(sizes)
            lines.append((line.prompt, line.completion))
        return line

    async def _openai(self, http: web.Request) -> web.StreamResponse:
        kind = http.match_info["kind"]
        line = self._enter(kind, await http.json())
        choice = {"finish_reason": _FINISH.get(kind, "stop"), "message": {"role": "assistant", "content": TEXT}}
        answer = {"object": "chat.completion", "choices": [choice], "usage": line.usage}
        return await self._send(http, kind, json.dumps(answer).encode())

    async def _anthropic(self, http: web.Request) -> web.StreamResponse:
        """The same counts, in Anthropic's spelling."""
        kind = http.match_info["kind"]
        line = self._enter(kind, await http.json())
        usage = line.usage
        if isinstance(usage, dict):
            details = usage.get("prompt_tokens_details") or {}
            thoughts = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
            names = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}
            usage = {names[name]: value for name, value in usage.items() if name in names} | {
                "cache_read_input_tokens": details.get("cached_tokens"),
                "cache_creation_input_tokens": details.get("cache_write_tokens", 0),
                "output_tokens_details": {"thinking_tokens": thoughts},
            }
        answer = {"content": [{"type": "text", "text": TEXT}], "stop_reason": "end_turn", "usage": usage}
        return await self._send(http, kind, json.dumps(answer).encode())

    async def _send(self, http: web.Request, kind: str, body: bytes) -> web.StreamResponse:
        await asyncio.sleep(0.003)
        match kind:
            case "reset" | "half_body":
                return await self._half(http, body, reset=kind == "reset")
            case "hang" | "slow":
                await asyncio.sleep(0.6)
            case "408" | "502" | "504" | "524":
                return web.Response(
                    status=int(kind), text="<html><title>Gateway</title></html>", content_type="text/html"
                )
            case "500_timed_out":
                return web.json_response({"error": {"message": "litellm.Timeout: timed out"}}, status=500)
            case "no_body":
                body = b""
            case "cut_json" | "cut_text":
                body = body[: len(body) // 2]
        return web.Response(body=body, content_type="text/plain" if kind == "cut_text" else "application/json")

    async def _half(self, http: web.Request, body: bytes, *, reset: bool) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.content_length = len(body)
        await response.prepare(http)
        await response.write(body[: len(body) // 2])
        if http.transport is not None:
            await asyncio.sleep(0.01)
            (http.transport.abort if reset else http.transport.close)()
        return response
