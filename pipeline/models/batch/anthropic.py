"""Anthropic's Message Batches: requests in one call, results as one stream of lines.

Limits per batch: 100,000 requests and 256 MB. A batch can't carry a note of ours, so one that was created just before a kill
is looked for by its age and its size, and known by the custom ids of its results. Another program's batch of the same size
may be waited for, and is then left alone.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from pipeline.models.batch.api import TRANSFER_S, BatchApi, Line, Look
from pipeline.models.batch.ledger import Batch
from pipeline.models.provider_errors import Transient, from_body
from pipeline.models.providers import AnthropicProvider
from pipeline.models.request import Answer


class AnthropicBatches(BatchApi):
    most_requests = 100_000
    most_bytes = 256_000_000
    finds_surely = False

    def __init__(self, live: AnthropicProvider, timeout_s: float) -> None:
        super().__init__(live, live.client.messages.batches, timeout_s)

    async def create(self, batch: Batch, lines: Sequence[Line]) -> str:
        requests = [{"custom_id": one, "params": body} for one, body in lines]
        created = await self.call(self._batches.create(requests=requests, timeout=TRANSFER_S), TRANSFER_S)
        return str(created.id)

    async def find(self, batch: Batch, others: set[str]) -> str | None:
        async with self.within(TRANSFER_S):
            async for one in self.newer(self._batches.list(limit=100), batch):
                if one.id not in others and _counts(one)[1] == batch.size:
                    return str(one.id)
        return None

    async def look(self, batch_id: str) -> Look:
        batch = await self.call(self._batches.retrieve(batch_id))
        ended = batch.processing_status == "ended"
        # Results that are too old have no address.
        files = (batch_id,) if ended and batch.results_url else ()
        return Look(batch.processing_status, _counts(batch)[0], ended, files, ran=batch.request_counts.succeeded)

    def stream(self, file: str) -> AbstractAsyncContextManager[Any]:
        response: AbstractAsyncContextManager[Any] = self._batches.with_streaming_response.results(file)
        return response

    def read(self, result: dict[str, Any], max_tokens: int) -> Answer:
        outcome = result.get("result") or {}
        kind = outcome.get("type")
        if kind == "succeeded" and isinstance(outcome.get("message"), dict):
            return self._live.read(outcome["message"], max_tokens, outcome["message"].get("id"))
        if kind == "errored":
            raise from_body(outcome.get("error"), self.model)
        # expired, canceled: it never reached the model.
        raise Transient(f"batch_{kind}", f"the batch gives no answer: {kind}")


def _counts(batch: Any) -> tuple[int, int]:
    """(done, all) requests of a batch."""
    counts = batch.request_counts
    done = counts.succeeded + counts.errored + counts.canceled + counts.expired
    return done, done + counts.processing
