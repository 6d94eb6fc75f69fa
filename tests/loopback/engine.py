"""One chat call from its bytes to its bytes: key, parse, behaviour, limits, latency, fault, answer, ledger.

All of it runs on the server's loop. `complete` alone is what a batch endpoint needs: a request in, a completion out.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from types import ModuleType

from aiohttp import web

from tests.loopback import anthropic_wire, openai_wire
from tests.loopback.behaviours import echo, honour_schema
from tests.loopback.chat import BadRequest, Behaviour, ChatRequest, Completion, complete
from tests.loopback.dialects import Dialect
from tests.loopback.faults import FaultPlan
from tests.loopback.ledger import Call, Ledger
from tests.loopback.limits import LimitState, RateLimiter
from tests.loopback.misbehave import Exchange, misbehave

WIRES: dict[str, ModuleType] = {"openai": openai_wire, "anthropic": anthropic_wire}

# How the questions begin that a run asks each model first.
_PROBES = ("Reply with the ", "Reply with this JSON")

Latency = float | Callable[[ChatRequest], float]


class Engine:
    """Holds what outlives a call. `behaviour`, `faults`, `latency` and `limiter` may be replaced between calls."""

    def __init__(
        self,
        behaviour: Behaviour = echo,
        *,
        faults: FaultPlan | None = None,
        latency: Latency = 0.0,
        key: str | None = None,
        limiter: RateLimiter | None = None,
        charge: str = "actual",
        hints: str = "all",
        cached_share: float = 0.0,
        models: Sequence[str] | None = None,
        dialect: Dialect | None = None,
    ) -> None:
        if charge not in ("actual", "max_tokens"):
            raise ValueError(f'charge must be "actual" or "max_tokens", got {charge!r}')
        if hints not in ("all", "retry", "none"):
            raise ValueError(f'hints must be "all", "retry" or "none", got {hints!r}')
        self.behaviour = behaviour
        self.faults = faults or FaultPlan.none()
        self.latency = latency
        self.key = key
        self.limiter = limiter
        self.charge = charge
        self.hints = hints
        self.cached_share = cached_share
        self.models = None if models is None else list(models)
        self.dialect = dialect
        self.keys_seen: set[str | None] = set()
        self.ledger = Ledger()

    def authorised(self, wire: ModuleType, http: web.Request) -> bool:
        self.keys_seen.add(wire.key_of(http.headers))
        return self.key is None or wire.key_of(http.headers) == self.key

    def complete(self, request: ChatRequest) -> Completion:
        """What the model answers, cut and billed; no I/O, no latency, no fault. Raises `BadRequest`."""
        if self.models is not None and request.model not in self.models:
            raise BadRequest(f"The model `{request.model}` does not exist or you do not have access to it.", status=404)
        reply = honour_schema(request, self.behaviour(request))
        return complete(request, reply, cached_share=self.cached_share)

    async def chat(self, wire: ModuleType, http: web.Request) -> web.StreamResponse:
        call = self.ledger.arrive(wire.NAME)
        try:
            return await self._serve(wire, http, call)
        except ConnectionError:
            # The caller has gone; the record says how far its call came.
            return web.Response()
        finally:
            self.ledger.leave(call)

    async def _serve(self, wire: ModuleType, http: web.Request, call: Call) -> web.StreamResponse:
        exchange = Exchange(wire, http, call, {wire.REQUEST_ID: f"req_{call.number:08d}"}, self.faults)
        raw = await http.read()
        if not self.authorised(wire, http):
            return await exchange.send_error(401, "Incorrect API key provided.")
        try:
            body = _decode(raw)
            if self.dialect and (refusal := self.dialect(body)):
                return await exchange.send(refusal[0], json.dumps(refusal[1]).encode())
            request = wire.parse(body, http.headers)
            self.ledger.identify(call, request)
            completion = self.complete(request)
        except BadRequest as error:
            return await exchange.send_error(error.status, str(error), param=error.param)
        wait = self._admit(wire, exchange, request, completion)
        if wait is not None:
            return await self._refuse(exchange, *wait)
        seconds = self.latency if isinstance(self.latency, (int, float)) else self.latency(request)
        if seconds > 0:
            await asyncio.sleep(seconds)
        if self.faults.hits_probes or not request.last_user.startswith(_PROBES):
            call.fault = self.faults.draw(call.number, request, call.attempt)
        if call.fault is not None:
            return await misbehave(call.fault, exchange, request, completion)
        return await exchange.send_answer(request, completion)

    def _admit(
        self, wire: ModuleType, exchange: Exchange, request: ChatRequest, completion: Completion
    ) -> tuple[float, str] | None:
        """`None` when the limits allow the call, else how long to wait and for which; sets the headers that tell."""
        if self.limiter is None:
            return None
        tokens = completion.usage.total
        if self.charge == "max_tokens":
            tokens = completion.usage.input_tokens + (request.max_tokens or completion.usage.output_tokens)
        wait = self.limiter.admit(tokens)
        state: LimitState = self.limiter.state()
        if self.hints == "all":
            exchange.headers.update(wire.limit_headers(state))
        return wait if wait[0] > 0 else None

    async def _refuse(self, exchange: Exchange, seconds: float, what: str) -> web.StreamResponse:
        exchange.call.limited = True
        if self.hints != "none":
            exchange.headers.update(exchange.wire.retry_headers(seconds))
        message = f"Rate limit reached for {what} per minute. Please try again in {seconds:.3f}s."
        return await exchange.send_error(429, message)


def _decode(raw: bytes) -> dict[str, object]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"We could not parse the JSON body of your request: {error}") from None
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    return body
