"""What a provider's batch API can do, the same for all: the class that `openai.py` and `anthropic.py` complete."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.errors import ProviderStopped, RowReject
from pipeline.models.batch.ledger import Batch
from pipeline.models.provider_errors import Transient, UselessAnswer, without_keys
from pipeline.models.providers import SdkProvider
from pipeline.models.reading import shaped
from pipeline.models.request import Answer, ChatRequest

Result = TypeVar("Result")
# Up to 256 MB are sent.
TRANSFER_S = 900.0
# How far apart the provider's clock and ours may be.
_CLOCKS_S = 3600.0
_CHUNK = 1 << 20
Line = tuple[str, dict[str, Any]]
"""A request as it is sent: custom id and body."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a batch failed as a whole. `line` counts its requests from 1; None when none of them is at fault."""

    line: int | None
    code: str
    message: str
    # The provider has too much of ours in its queue: a smaller batch, or the same one later, is fine.
    passing: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """The provider's state of a batch. `files` hold the results once it has ended; `source` is what was uploaded.

    ran: how many of its requests the model has answered, and been paid for, by the provider's own count. taken: whether the
    provider has accepted it.
    """

    state: str
    done: int
    ended: bool
    files: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    source: str | None = None
    ran: int = 0
    taken: bool = True


class BatchApi(ABC):
    """The batch side of `live`, with its client, its key and its way to read answers.

    Methods raise what a live call raises: Transient, RowReject, ProviderStopped. batches: the SDK's batch resource.
    """

    most_requests: int
    most_bytes: int
    # Whether what `find` gives is ours without doubt.
    finds_surely = True

    def __init__(self, live: SdkProvider, batches: Any, timeout_s: float) -> None:
        self.model = live.model
        self._live = live
        self._batches = batches
        self._timeout_s = timeout_s

    @abstractmethod
    async def create(self, batch: Batch, lines: Sequence[Line]) -> str:
        """Send a batch; its id."""

    @abstractmethod
    async def find(self, batch: Batch, others: set[str]) -> str | None:
        """The id of a batch that was perhaps created, and is none of `others`. Clears up what a kill left of it."""

    @abstractmethod
    async def look(self, batch_id: str) -> Look: ...

    @abstractmethod
    def read(self, result: dict[str, Any], max_tokens: int) -> Answer:
        """One line of a result file as an answer."""

    @abstractmethod
    def stream(self, file: str) -> AbstractAsyncContextManager[Any]:
        """The SDK's streamed response with a result file."""

    async def discard(self, look: Look) -> None:
        """Delete what was uploaded, where something was."""
        return

    async def cancel(self, batch_id: str) -> None:
        await self.call(self._batches.cancel(batch_id))

    async def close(self) -> None:
        await self._live.close()

    def sent(self, request: ChatRequest) -> dict[str, Any]:
        """The arguments of a live call."""
        return self._live.sent(request)

    def body(self, request: ChatRequest) -> dict[str, Any]:
        """The request's body as a live call sends it: the SDKs merge `extra_body` into it."""
        arguments = self.sent(request)
        extra = arguments.pop("extra_body", {})
        return {**arguments, **extra}

    async def call(self, call: Awaitable[Result], timeout_s: float | None = None) -> Result:
        async with self.within(timeout_s or self._timeout_s):
            return await call

    @asynccontextmanager
    async def within(self, seconds: float | None) -> AsyncIterator[None]:
        """Limits the time of an SDK's calls, and raises what they raise as our own exceptions."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except Exception as error:
            raise self._live.translate(error) from None

    async def newer(self, listed: AsyncIterator[Any], batch: Batch) -> AsyncIterator[Any]:
        """Of a provider's list, newest first, what is not older than `batch`."""
        async for one in listed:
            at = one.created_at
            if (at if isinstance(at, int) else at.timestamp()) < batch.created - _CLOCKS_S:
                break
            yield one

    async def results(self, file: str, wanted: set[str]) -> AsyncGenerator[list[tuple[str, str]]]:
        """A result file's lines for the `wanted` custom ids, as groups of (custom id, JSON) without keys, in any order."""
        rest = b""
        async with self.within(None), self.stream(file) as response:
            async for chunk in response.iter_bytes(_CHUNK):
                # By the byte: JSON strings may hold what text counts as line ends.
                *lines, rest = (rest + chunk).split(b"\n")
                yield _parse(lines, wanted)
        yield _parse([rest], wanted)

    def read_kept(self, text: str, max_tokens: int) -> Answer:
        """A result line of the ledger as an answer. Raises what a live call raises."""
        with shaped(text):
            return self.read(json.loads(text), max_tokens)

    def outcome(self, text: str) -> Answer | Exception:
        """What a result line holds: an answer, be it of use or not, or why there is none."""
        try:
            return self.read_kept(text, 0)
        except UselessAnswer as useless:
            return useless.usage
        except (RowReject, Transient, ProviderStopped) as failure:
            return failure


def _parse(lines: Iterable[bytes], wanted: set[str]) -> list[tuple[str, str]]:
    results = []
    for line in lines:
        text = without_keys(line.decode("utf-8", "replace"))
        with suppress(ValueError, TypeError, KeyError, RecursionError):
            custom_id = json.loads(text)["custom_id"]
            if custom_id in wanted:
                results.append((custom_id, text))
    return results


def refusal(custom_id: str, code: str, message: str) -> str:
    """A result line in OpenAI's shape for a request that was refused before it reached the model."""
    error = {"code": code, "message": without_keys(message)}
    return json.dumps({"custom_id": custom_id, "response": {"status_code": 400, "body": {"error": error}}})


def cut(lines: Iterable[Line], most_requests: int, most_bytes: int) -> Iterator[list[Line]]:
    """Cut into batches that the provider takes."""
    batch: list[Line] = []
    size = 0
    for line in lines:
        # The line's own length, and what stands around it in either provider's spelling.
        length = len(json.dumps(line[1])) + len(line[0]) + 128
        if batch and (len(batch) >= most_requests or size + length > most_bytes):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += length
    if batch:
        yield batch
