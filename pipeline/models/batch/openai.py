"""OpenAI's Batch API: requests as a JSONL file that is uploaded, results as an output file and an error file.

Limits per file: 50,000 requests and 200 MB. A batch carries our key as metadata, and its file as its name, so that both can
be found again after a kill between sending and noting the provider's id.
"""

import json
import re
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

from tenacity import retry, retry_if_exception, stop_after_attempt, wait_exponential

from pipeline.errors import ProviderStopped, RowReject
from pipeline.models.batch.api import TRANSFER_S, BatchApi, Line, Look, Problem
from pipeline.models.batch.ledger import Batch
from pipeline.models.error_words import read_words
from pipeline.models.provider_errors import Transient, from_status, snippet
from pipeline.models.providers import OpenAIProvider
from pipeline.models.request import Answer

_NOTE = "figa_batch"
_ENDED = ("completed", "failed", "expired", "cancelled")
# More of ours is waiting there than the account may have.
_TOO_MUCH = "token_limit_exceeded"
_NO_FILE = re.compile(
    r"(?:cannot|can't|could not|couldn't|unable to) find .{0,30}file|no such .{0,10}file|file .{0,80}not (?:found|ready|exist)"
    r"|file_not_found",
    re.IGNORECASE,
)


def _lacks_file(error: BaseException) -> bool:
    return isinstance(error, RowReject) and bool(_NO_FILE.search(str(error.evidence.get("error"))))


class OpenAIBatches(BatchApi):
    most_requests = 50_000
    most_bytes = 200_000_000

    def __init__(self, live: OpenAIProvider, timeout_s: float) -> None:
        super().__init__(live, live.client.batches, timeout_s)
        self._files = live.client.files

    async def create(self, batch: Batch, lines: Sequence[Line]) -> str:
        content = "".join(
            json.dumps({"custom_id": one, "method": "POST", "url": "/v1/chat/completions", "body": body}) + "\n"
            for one, body in lines
        )
        name = _file_name(batch), content.encode("ascii")
        file = await self.call(self._files.create(file=name, purpose="batch", timeout=TRANSFER_S), TRANSFER_S)
        try:
            return await self._create(file.id, batch.key)
        except (RowReject, ProviderStopped):
            with suppress(RowReject, Transient):
                await self.call(self._files.delete(file.id))
            raise

    @retry(retry=retry_if_exception(_lacks_file), wait=wait_exponential(), stop=stop_after_attempt(6), reraise=True)
    async def _create(self, file_id: str, key: str) -> str:
        """A batch of an uploaded file, which the provider may not know yet a moment after it took it."""
        created = self._batches.create(
            input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h", metadata={_NOTE: key}
        )
        return str((await self.call(created)).id)

    async def find(self, batch: Batch, others: set[str]) -> str | None:
        async with self.within(TRANSFER_S):
            async for one in self.newer(self._batches.list(limit=100), batch):
                if (one.metadata or {}).get(_NOTE) == batch.key:
                    return str(one.id)
            # A file that was uploaded without a batch: nobody else will use it.
            listed = self._files.list(purpose="batch", order="desc", limit=1000)
            async for file in self.newer(aiter(listed), batch):
                if file.filename == _file_name(batch):
                    await self._files.delete(file.id)
        return None

    async def look(self, batch_id: str) -> Look:
        batch = await self.call(self._batches.retrieve(batch_id))
        counts = batch.request_counts
        problems = []
        if batch.status == "failed":
            for error in (batch.errors.data if batch.errors else None) or []:
                passing = error.code == _TOO_MUCH or bool(_NO_FILE.search(f"{error.code} {error.message}"))
                problems.append(Problem(error.line, error.code or "", snippet(error.message or "", 300), passing))
            problems = problems or [Problem(None, "failed", "the provider gives no reason")]
        return Look(
            batch.status,
            counts.completed + counts.failed if counts else 0,
            batch.status in _ENDED,
            tuple(file for file in (batch.output_file_id, batch.error_file_id) if file),
            tuple(problems),
            batch.input_file_id,
            counts.completed if counts else 0,
            batch.status != "validating",
        )

    def stream(self, file: str) -> AbstractAsyncContextManager[Any]:
        response: AbstractAsyncContextManager[Any] = self._files.with_streaming_response.content(file)
        return response

    def read(self, result: dict[str, Any], max_tokens: int) -> Answer:
        response = result.get("response")
        if not isinstance(response, dict):
            error = result.get("error") or {}
            # batch_expired, batch_cancelled: it never reached the model.
            raise Transient(str(error.get("code") or "batch_item_failed"), str(error.get("message") or "no response"))
        status, body = response.get("status_code"), response.get("body")
        if status != 200:
            raise from_status(int(status or 500), read_words(body), self.model)
        if not isinstance(body, dict):
            raise Transient("malformed_answer", "a result that is no completion")
        return self._live.read(body, max_tokens, response.get("request_id"))

    async def discard(self, look: Look) -> None:
        if look.source:
            await self.call(self._files.delete(look.source))


def _file_name(batch: Batch) -> str:
    return f"figa-{batch.key}.jsonl"
