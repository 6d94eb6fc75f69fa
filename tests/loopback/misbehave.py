"""Answers on the wire: the good one, and each fault's bad one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from email.utils import formatdate
from types import ModuleType
from typing import Any

from aiohttp import web

from tests.loopback import faults
from tests.loopback.chat import CONTENT_FILTER, LENGTH, REFUSAL, ChatRequest, Completion, without_choice
from tests.loopback.faults import FaultPlan
from tests.loopback.ledger import Call
from tests.loopback.refusals import REFUSALS

JSON = "application/json"
ABSURD_SECONDS = 1_000_000_000
_PAGE = (
    "<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head>\n"
    "<body><center><h1>502 Bad Gateway</h1></center><hr><center>cloudflare</center></body></html>\n"
)
# How often a hanging call looks whether its caller has gone.
_LOOK_SECONDS = 0.05


@dataclass(slots=True)
class Exchange:
    """One call's way back: where to write, what the headers say so far, and the record to fill in."""

    wire: ModuleType
    http: web.Request
    call: Call
    headers: dict[str, str]
    plan: FaultPlan

    async def send(self, status: int, body: bytes, content_type: str = JSON) -> web.StreamResponse:
        """Write all of it here, not after the handler, so that `completed` can say whether it went out."""
        self.call.status = status
        response = web.Response(status=status, body=body, headers=self.headers, content_type=content_type)
        await response.prepare(self.http)
        await response.write_eof()
        return response

    async def send_answer(self, request: ChatRequest, completion: Completion) -> web.StreamResponse:
        # Before writing: a caller that has left is billed all the same.
        self.call.usage = completion.usage
        response = await self.send(200, self.encode(request, completion))
        self.call.completed = True
        return response

    async def send_error(self, status: int, message: str, **fields: Any) -> web.StreamResponse:
        return await self.send(status, json.dumps(self.wire.error(status, message, **fields)).encode())

    def encode(self, request: ChatRequest, completion: Completion) -> bytes:
        return json.dumps(self.wire.answer(request, completion, f"{self.call.number:08d}")).encode()

    @property
    def caller_left(self) -> bool:
        return self.http.transport is None or self.http.transport.is_closing()


async def misbehave(fault: str, exchange: Exchange, request: ChatRequest, completion: Completion) -> web.StreamResponse:
    """Answer `exchange` the way `fault` says."""
    if fault in _ANSWERS:
        return await exchange.send_answer(request, _ANSWERS[fault](completion))
    if fault in _WIRE:
        return await _WIRE[fault](exchange, request, completion)
    if fault in REFUSALS:
        refusal = REFUSALS[fault]
        exchange.headers.update(refusal.headers)
        return await exchange.send(refusal.status, refusal.content, refusal.content_type)
    return await _refuse(fault, exchange)


# -- a status that refuses ------------------------------------------------------------------------------------------


async def _refuse(fault: str, exchange: Exchange) -> web.StreamResponse:
    if fault in faults.RATE_FAULTS:
        exchange.headers.update(_retry_headers(fault, exchange.plan.retry_after))
        return await exchange.send_error(429, "Rate limit reached (a planned fault).")
    if fault == faults.QUOTA:
        # The refusal that no waiting mends: OpenAI spells it 429, Anthropic 402.
        status = 429 if exchange.wire.NAME == "openai" else 402
        message = "You exceeded your current quota, please check your plan and billing details."
        return await exchange.send_error(status, message, code="insufficient_quota")
    if fault == faults.BAD_GATEWAY:
        # From the proxy before the provider, hence HTML.
        return await exchange.send(502, _PAGE.encode(), "text/html")
    return await exchange.send_error(int(fault), f"A planned fault: {fault}.")


def _retry_headers(fault: str, seconds: float) -> dict[str, str]:
    match fault:
        case faults.RATE_SECONDS:
            return {"Retry-After": f"{seconds:g}"}
        case faults.RATE_DATE:
            # A date has whole seconds: one that is rounded down may be past already.
            return {"Retry-After": formatdate(int(time.time() + seconds) + 1, usegmt=True)}
        case faults.RATE_MS:
            return {"retry-after-ms": str(round(seconds * 1000))}
        case faults.RATE_ABSURD:
            return {"Retry-After": str(ABSURD_SECONDS)}
    return {}


# -- the connection fails -------------------------------------------------------------------------------------------


async def _reset_before(exchange: Exchange, request: ChatRequest, completion: Completion) -> web.StreamResponse:
    _reset(exchange)
    return web.Response()


async def _close_before(exchange: Exchange, request: ChatRequest, completion: Completion) -> web.StreamResponse:
    if exchange.http.transport is not None:
        exchange.http.transport.close()
    return web.Response()


async def _reset_after(exchange: Exchange, request: ChatRequest, completion: Completion) -> web.StreamResponse:
    response = await _send_half(exchange, request, completion)
    # The client has read the headers by then; a reset on their heels may overtake them.
    await asyncio.sleep(0.02)
    _reset(exchange)
    return response


async def _half_body(exchange: Exchange, request: ChatRequest, completion: Completion) -> web.StreamResponse:
    response = await _send_half(exchange, request, completion)
    if exchange.http.transport is not None:
        exchange.http.transport.close()
    return response


async def _send_half(exchange: Exchange, request: ChatRequest, completion: Completion) -> web.StreamResponse:
    body = exchange.encode(request, completion)
    response = await _start(exchange, completion, len(body))
    await response.write(body[: len(body) // 2])
    return response


async def _trickle(exchange: Exchange, request: ChatRequest, completion: Completion) -> web.StreamResponse:
    body = exchange.encode(request, completion)
    response = await _start(exchange, completion, len(body))
    for index in range(len(body)):
        await response.write(body[index : index + 1])
        await asyncio.sleep(exchange.plan.trickle_interval)
    await response.write_eof()
    exchange.call.completed = True
    return response


async def _hang(exchange: Exchange, request: ChatRequest, completion: Completion) -> web.StreamResponse:
    """Silence, then the answer. A caller that has left by then isn't billed: the model was never reached."""
    end = time.monotonic() + exchange.plan.hang_seconds
    while (left := end - time.monotonic()) > 0:
        if exchange.caller_left:
            return web.Response()
        await asyncio.sleep(min(left, _LOOK_SECONDS))
    return await exchange.send_answer(request, completion)


async def _start(exchange: Exchange, completion: Completion, length: int) -> web.StreamResponse:
    exchange.call.status, exchange.call.usage = 200, completion.usage
    response = web.StreamResponse(headers={**exchange.headers, "Content-Type": JSON})
    response.content_length = length
    await response.prepare(exchange.http)
    return response


def _reset(exchange: Exchange) -> None:
    """RST, not FIN: with lingering set to zero seconds the kernel drops what is unsent and resets."""
    transport = exchange.http.transport
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


# -- a 200 that is no answer ----------------------------------------------------------------------------------------


async def _html(exchange: Exchange, request: ChatRequest, completion: Completion) -> web.StreamResponse:
    return await exchange.send(200, _PAGE.encode(), "text/html")


async def _malformed(exchange: Exchange, request: ChatRequest, completion: Completion) -> web.StreamResponse:
    exchange.call.usage = completion.usage
    body = exchange.encode(request, completion)
    # Length and type are right, only the last third is missing: a buffer cut by some proxy.
    return await exchange.send(200, body[: len(body) * 2 // 3])


async def _empty_body(exchange: Exchange, request: ChatRequest, completion: Completion) -> web.StreamResponse:
    return await exchange.send(200, b"")


async def _error_body(exchange: Exchange, request: ChatRequest, completion: Completion) -> web.StreamResponse:
    return await exchange.send(200, json.dumps(exchange.wire.error(500, "A planned fault.")).encode())


async def _wrong_type(exchange: Exchange, request: ChatRequest, completion: Completion) -> web.StreamResponse:
    """The answer itself is right."""
    exchange.call.usage = completion.usage
    response = await exchange.send(200, exchange.encode(request, completion), "text/plain")
    exchange.call.completed = True
    return response


# -- a well-formed answer of no use ---------------------------------------------------------------------------------

_ANSWERS: dict[str, Callable[[Completion], Completion]] = {
    faults.EMPTY_CHOICES: without_choice,
    faults.NULL_CONTENT: lambda completion: replace(completion, text=None),
    faults.EMPTY_TEXT: lambda completion: replace(completion, text=""),
    faults.WHITESPACE: lambda completion: replace(completion, text=" \n\t "),
    faults.REFUSED: lambda completion: replace(completion, text="I can't help with that.", finish=REFUSAL),
    faults.FILTERED: lambda completion: replace(completion, text="", finish=CONTENT_FILTER),
    faults.CUT: lambda completion: replace(
        completion, text=(completion.text or "")[: len(completion.text or "") // 2], finish=LENGTH
    ),
}
_WIRE: dict[str, Callable[[Exchange, ChatRequest, Completion], Awaitable[web.StreamResponse]]] = {
    faults.RESET_BEFORE_HEADERS: _reset_before,
    faults.RESET_AFTER_HEADERS: _reset_after,
    faults.CLOSE_BEFORE_HEADERS: _close_before,
    faults.HALF_BODY: _half_body,
    faults.HANG: _hang,
    faults.TRICKLE: _trickle,
    faults.HTML: _html,
    faults.MALFORMED_JSON: _malformed,
    faults.EMPTY_BODY: _empty_body,
    faults.ERROR_BODY: _error_body,
    faults.WRONG_CONTENT_TYPE: _wrong_type,
}
