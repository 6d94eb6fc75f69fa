"""OpenAI's Batch API: requests as a JSONL file that is uploaded, results as an output file and an error file.

Limits a file: 50,000 requests and 200 MB. A batch carries our key as metadata, and its file as its name, so that both can be
found again after a kill between sending and noting the provider's id.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.errors import ProviderStopped, RowReject
from pipeline.models.batch.api import Line, Look, Problem, as_sent, byte_lines, within
from pipeline.models.batch.ledger import Batch
from pipeline.models.journal import Answer
from pipeline.models.provider_errors import Transient, from_status
from pipeline.models.providers import OpenAIProvider

if TYPE_CHECKING:
    from pipeline.models.chat import ChatRequest

Result = TypeVar("Result")

_NOTE = "figa_batch"
_ENDED = ("completed", "failed", "expired", "cancelled")
# More of ours is waiting there than the account may have.
_TOO_MUCH = "token_limit_exceeded"
# Up to 200 MB go either way.
_TRANSFER_S = 900.0
# How far apart the provider's clock and ours may be.
_CLOCKS_S = 3600.0


class OpenAIBatches:
    """The batch side of `live`, with its client, its key and its way to read answers."""

    most_requests = 50_000
    most_bytes = 200_000_000

    def __init__(self, live: OpenAIProvider, timeout_s: float) -> None:
        self.model = live.model
        self._live = live
        self._client = live.client
        self._timeout_s = timeout_s

    async def close(self) -> None:
        await self._live.close()

    def body(self, request: ChatRequest) -> dict[str, Any]:
        return as_sent(self._live.arguments(request))

    async def create(self, batch: Batch, lines: Sequence[Line]) -> str:
        content = "".join(
            json.dumps({"custom_id": one, "method": "POST", "url": "/v1/chat/completions", "body": body}) + "\n"
            for one, body in lines
        )
        upload = self._client.files.create(
            file=(_file_name(batch), content.encode("ascii")), purpose="batch", timeout=_TRANSFER_S
        )
        file = await self._call(upload, _TRANSFER_S)
        try:
            created = await self._call(
                self._client.batches.create(
                    input_file_id=file.id,
                    endpoint="/v1/chat/completions",
                    completion_window="24h",
                    metadata={_NOTE: batch.key},
                )
            )
        except (RowReject, ProviderStopped):
            await self._call(self._client.files.delete(file.id))
            raise
        return created.id

    async def find(self, batch: Batch, others: set[str]) -> str | None:
        since = batch.created - _CLOCKS_S
        async with within(_TRANSFER_S, self._live.translate):
            async for one in self._client.batches.list(limit=100):
                if one.created_at < since:
                    break
                if (one.metadata or {}).get(_NOTE) == batch.key:
                    return one.id
            # Uploaded, and the batch never made: nobody else will use this file.
            async for file in self._client.files.list(purpose="batch", order="desc", limit=1000):
                if file.created_at < since:
                    break
                if file.filename == _file_name(batch):
                    await self._client.files.delete(file.id)
        return None

    async def look(self, batch_id: str) -> Look:
        batch = await self._call(self._client.batches.retrieve(batch_id))
        counts = batch.request_counts
        problems = [
            Problem(one.line, one.code or "", one.message or "", passing=one.code == _TOO_MUCH)
            for one in (batch.errors.data or [] if batch.errors else [])
        ]
        if batch.status == "failed" and not problems:
            problems = [Problem(None, "failed", "the provider gives no reason")]
        return Look(
            batch.status,
            counts.completed + counts.failed if counts else 0,
            batch.status in _ENDED,
            tuple(file for file in (batch.output_file_id, batch.error_file_id) if file),
            tuple(problems) if batch.status == "failed" else (),
            batch.input_file_id,
        )

    async def lines(self, file: str) -> AsyncGenerator[bytes]:
        streamed = self._client.files.with_streaming_response.content(file)
        async with within(None, self._live.translate), streamed as response:
            async for line in byte_lines(response.iter_bytes()):
                yield line

    def read(self, result: dict[str, Any], max_tokens: int) -> Answer:
        response = result.get("response")
        if not isinstance(response, dict):
            error = result.get("error") or {}
            # batch_expired, batch_cancelled: it was never asked.
            raise Transient(str(error.get("code") or "batch_item_failed"), str(error.get("message") or "no response"))
        status, body = response.get("status_code"), response.get("body")
        if status != 200:
            inner = body.get("error") if isinstance(body, dict) else None
            error = inner if isinstance(inner, dict) else {}
            code = error.get("code") or error.get("type")
            raise from_status(int(status or 500), code, str(error.get("message") or body or ""), self.model)
        if not isinstance(body, dict):
            raise Transient("malformed_answer", "a result that is no completion")
        return self._live.read(body, max_tokens, response.get("request_id"))

    async def discard(self, look: Look) -> None:
        if look.source:
            await self._call(self._client.files.delete(look.source))

    async def cancel(self, batch_id: str) -> None:
        await self._call(self._client.batches.cancel(batch_id))

    async def _call(self, call: Awaitable[Result], timeout_s: float | None = None) -> Result:
        async with within(timeout_s or self._timeout_s, self._live.translate):
            return await call


def _file_name(batch: Batch) -> str:
    return f"figa-{batch.key}.jsonl"
