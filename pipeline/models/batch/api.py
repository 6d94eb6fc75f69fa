"""What a provider's batch API can do, the same for all: the shape that `batch_openai` and `batch_anthropic` fill."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pipeline.models.batch.ledger import Batch, BatchLedger
from pipeline.models.journal import Answer
from pipeline.models.provider_errors import Transient, shaped, without_keys
from pipeline.models.retry import retrying

if TYPE_CHECKING:
    from pipeline.models.chat import ChatRequest

Result = TypeVar("Result")
_KEPT_AT_ONCE = 500
# Looks in a row that may fail, each of them tried several times.
_PATIENCE = 20
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
    """What the provider says of a batch. `files` hold the results once it has ended; `source` is what was uploaded."""

    state: str
    done: int
    ended: bool
    files: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    source: str | None = None


class Waiting:
    """A request that somebody waits for, `most` what it can cost in US dollars; `batch` is the key of the one that it is in."""

    __slots__ = ("batch", "body", "future", "most")

    def __init__(self, body: dict[str, Any], most: float, batch: str | None) -> None:
        self.body = body
        self.most = most
        self.batch = batch
        self.future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def fail(self, error: BaseException) -> None:
        if self.future.done():
            return
        if isinstance(error, asyncio.CancelledError):
            self.future.cancel()
        else:
            self.future.set_exception(error)
            # Whoever waited may have been cancelled: then nobody looks, and asyncio needn't complain.
            self.future.exception()


class BatchApi(Protocol):
    """One provider's batch API. Methods raise what a live call raises: Transient, RowReject, ProviderStopped."""

    model: str
    most_requests: int
    most_bytes: int

    def body(self, request: ChatRequest) -> dict[str, Any]:
        """The request as a live call would send it."""

    async def create(self, batch: Batch, lines: Sequence[Line]) -> str:
        """Send a batch; its id."""

    async def find(self, batch: Batch, others: set[str]) -> str | None:
        """The id of a batch that was perhaps created, and is none of `others`. Clears up what a kill left of it."""

    async def look(self, batch_id: str) -> Look: ...

    def lines(self, file: str) -> AsyncGenerator[bytes]:
        """The lines of a result file, in any order."""

    def read(self, result: dict[str, Any], max_tokens: int) -> Answer:
        """One line of a result file as an answer."""

    async def discard(self, look: Look) -> None:
        """Delete what was uploaded."""

    async def cancel(self, batch_id: str) -> None: ...

    async def close(self) -> None: ...


def read_result(api: BatchApi, text: str, max_tokens: int) -> Answer:
    """A kept result line as an answer. Raises what a live call raises."""
    with shaped(text):
        return api.read(json.loads(text), max_tokens)


def refusal(custom_id: str, code: str, message: str) -> dict[str, Any]:
    """A result line in OpenAI's shape for a request that was refused before it was asked."""
    error = {"code": code, "message": without_keys(message)}
    return {"custom_id": custom_id, "response": {"status_code": 400, "body": {"error": error}}}


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


def as_sent(arguments: dict[str, Any]) -> dict[str, Any]:
    """An SDK method's arguments as the request's body: `extra_body` is the SDKs' word for what goes in as it stands."""
    extra = arguments.get("extra_body") or {}
    return {name: value for name, value in arguments.items() if name != "extra_body"} | extra


async def byte_lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines of a JSONL stream. By the byte: text has further line ends, which JSON strings may hold as they are."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
    if rest.strip():
        yield rest


async def results(api: BatchApi, file: str, mine: set[str]) -> AsyncGenerator[list[tuple[str, str]]]:
    """A result file's lines for the custom ids `mine`, as groups of (custom id, JSON) without keys."""
    group: list[tuple[str, str]] = []
    async with aclosing(api.lines(file)) as lines:
        async for line in lines:
            text = without_keys(line.decode("utf-8", "replace"))
            with suppress(ValueError, TypeError, KeyError, RecursionError):
                custom_id = json.loads(text)["custom_id"]
                if custom_id in mine:
                    group.append((custom_id, text))
            if len(group) >= _KEPT_AT_ONCE:
                yield group
                group = []
    if group:
        yield group


@asynccontextmanager
async def within(seconds: float | None, translate: Callable[[Exception], Exception]) -> AsyncIterator[None]:
    """Give an SDK's calls so long, and raise what they raise as our own."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except Exception as error:
        raise translate(error) from None


async def insist(call: Callable[[], Awaitable[Result]], attempts: int) -> Result:
    """Try a call to a batch API so many times. Raises what the last try raised."""

    # tenacity awaits only what is a coroutine function itself.
    async def attempt() -> Result:
        return await call()

    return await retrying(attempts)(attempt)


async def until_ended(api: BatchApi, ledger: BatchLedger, key: str, *, poll_s: float, attempts: int) -> Look:
    """Look at a batch every `poll_s` seconds until it has ended; the ledger gets what is new.

    Raises Transient or RowReject when the provider doesn't answer for long, or doesn't know the batch.
    """
    batch_id = str(ledger.batch(key).id)
    last = None
    failed = 0
    while True:
        try:
            look = await insist(partial(api.look, batch_id), attempts)
        except Transient:
            failed += 1
            # The batch is in good hands while the provider doesn't answer.
            if failed > _PATIENCE:
                raise
            await asyncio.sleep(poll_s)
            continue
        failed = 0
        if look != last:
            ledger.saw(key, look.state, look.done)
            last = look
        if look.ended:
            return look
        await asyncio.sleep(poll_s)
