"""Anthropic's Message Batches: requests in one call, results as one stream of lines.

Limits a batch: 100,000 requests and 256 MB. A batch can't carry a note of ours, so one that was created just before a kill is
looked for by its age and its size, and known by the custom ids of its results. Another program's batch of the same size may
be waited for, and is then left alone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.models.batch.api import Line, Look, as_sent, byte_lines, within
from pipeline.models.batch.ledger import Batch
from pipeline.models.journal import Answer
from pipeline.models.provider_errors import Transient, from_status
from pipeline.models.providers import AnthropicProvider

if TYPE_CHECKING:
    from pipeline.models.chat import ChatRequest

_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
# Up to 256 MB are sent.
_TRANSFER_S = 900.0
# How far apart the provider's clock and ours may be.
_CLOCKS_S = 3600.0

Result = TypeVar("Result")


class AnthropicBatches:
    """The batch side of `live`, with its client, its key and its way to read answers."""

    most_requests = 100_000
    most_bytes = 256_000_000

    def __init__(self, live: AnthropicProvider, timeout_s: float) -> None:
        self.model = live.model
        self._live = live
        self._batches = live.client.messages.batches
        self._timeout_s = timeout_s

    async def close(self) -> None:
        await self._live.close()

    def body(self, request: ChatRequest) -> dict[str, Any]:
        return as_sent(self._live.arguments(request))

    async def create(self, batch: Batch, lines: Sequence[Line]) -> str:
        requests: Any = [{"custom_id": one, "params": body} for one, body in lines]
        created = await self._call(self._batches.create(requests=requests, timeout=_TRANSFER_S), _TRANSFER_S)
        return created.id

    async def find(self, batch: Batch, others: set[str]) -> str | None:
        async with within(_TRANSFER_S, self._live.translate):
            async for one in self._batches.list(limit=100):
                if one.created_at.timestamp() < batch.created - _CLOCKS_S:
                    break
                if one.id not in others and _counts(one)[1] == batch.size:
                    return one.id
        return None

    async def look(self, batch_id: str) -> Look:
        batch = await self._call(self._batches.retrieve(batch_id))
        ended = batch.processing_status == "ended"
        # Results that are too old to be had have no address.
        files = (batch_id,) if ended and batch.results_url else ()
        return Look(batch.processing_status, _counts(batch)[0], ended, files)

    async def lines(self, file: str) -> AsyncGenerator[bytes]:
        async with within(None, self._live.translate), self._batches.with_streaming_response.results(file) as response:
            async for line in byte_lines(response.iter_bytes()):
                yield line

    def read(self, result: dict[str, Any], max_tokens: int) -> Answer:
        outcome = result.get("result") or {}
        kind = outcome.get("type")
        if kind == "succeeded" and isinstance(outcome.get("message"), dict):
            return self._live.read(outcome["message"], max_tokens, outcome["message"].get("id"))
        if kind == "errored":
            error = (outcome.get("error") or {}).get("error") or {}
            code = str(error.get("type") or "")
            raise from_status(_STATUS.get(code, 500), code, str(error.get("message") or ""), self.model)
        # expired, canceled: it was never asked.
        raise Transient(f"batch_{kind}", f"the batch gives no answer: {kind}")

    async def discard(self, look: Look) -> None:
        """Nothing was uploaded."""

    async def cancel(self, batch_id: str) -> None:
        await self._call(self._batches.cancel(batch_id))

    async def _call(self, call: Awaitable[Result], timeout_s: float | None = None) -> Result:
        async with within(timeout_s or self._timeout_s, self._live.translate):
            return await call


def _counts(batch: Any) -> tuple[int, int]:
    """(done, all) requests of a batch."""
    counts = batch.request_counts
    done = counts.succeeded + counts.errored + counts.canceled + counts.expired
    return done, done + counts.processing
