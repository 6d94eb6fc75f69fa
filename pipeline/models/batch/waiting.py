"""The requests that rows wait for, the money that requests in batches hold, the files that answer them, and room for more.

A request holds its worst case, in the ledger and the budget, from the note that it will be sent. While a row waits for it,
the row's own reservation replaces this in the budget. A result that no row waits for holds what it cost.
"""

import asyncio
import copy
from collections.abc import Awaitable, Callable, Collection
from contextlib import aclosing
from typing import Any, TypeVar

from pipeline.errors import CurationError, RowReject
from pipeline.models.batch.api import BatchApi
from pipeline.models.batch.ledger import BatchLedger
from pipeline.models.cost import Budget, Price
from pipeline.models.provider_errors import Transient
from pipeline.models.request import Answer, ChatRequest, upper_bound_tokens

Result = TypeVar("Result")
GONE = (404, 410)


class Waiting:
    """A request that somebody waits for: its worst-case cost in US dollars, and the key of the batch that it is in."""

    def __init__(self, api: BatchApi, request: ChatRequest, price: Price, batch: str | None) -> None:
        self.body = api.body(request)
        self.most = price.most(upper_bound_tokens(request), request.max_tokens)
        self.batch = batch
        self.future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def fail(self, error: BaseException) -> None:
        if self.future.done():
            return
        if isinstance(error, asyncio.CancelledError):
            self.future.cancel()
        else:
            self.future.set_exception(error)
            # Marks it as retrieved: asyncio would complain when whoever waited was cancelled.
            self.future.exception()


class WaitingRequests(dict[str, Waiting]):
    """One model's waiting requests by custom id."""

    def __init__(self, api: BatchApi, ledger: BatchLedger, budget: Budget, price: Price) -> None:
        self._api = api
        self._ledger = ledger
        self._budget = budget
        self._price = price

    def in_batch(self, key: str) -> list[str]:
        return [one for one, waiting in self.items() if waiting.batch == key]

    async def result(self, custom_id: str) -> str:
        """Wait for the result line of a request. Raises Transient when it must be sent again."""
        waiting = self[custom_id]
        try:
            # Of several that wait for one result, each may be cancelled alone.
            return await asyncio.shield(waiting.future)
        except BaseException as error:
            if waiting.batch and not isinstance(error, Transient):
                # It is still out and will be billed.
                self._budget.hold(custom_id, waiting.most)
            raise

    def fail_all(self, error: BaseException) -> None:
        for waiting in self.values():
            # A copy: thousands of callers that raise one exception would each add to its traceback.
            waiting.fail(copy.copy(error) if isinstance(error, CurationError) else error)
        self.clear()

    def keep(self, key: str, results: list[tuple[str, str]]) -> None:
        """Keep a batch's results, (custom id, JSON), and wake those who wait for them."""
        self._ledger.keep(key, results)
        costs = []
        for custom_id, text in results:
            waiting = self.pop(custom_id, None)
            if waiting and not waiting.future.done():
                waiting.future.set_result(text)
            elif not waiting and (cost := self._cost(text)) is not None:
                costs.append((custom_id, cost))
                self._budget.hold(custom_id, cost)
        self._ledger.hold(costs)

    def finish(self, key: str) -> None:
        """Close a batch in the ledger: what it didn't answer costs nothing."""
        for custom_id in self._ledger.finish(key):
            self._budget.hold(custom_id, 0.0)

    def give_up(self, key: str, why: str) -> None:
        """Close a batch that is gone: its requests are sent again, and what the lost one may have cost stays counted."""
        waiting = self.in_batch(key)
        for custom_id, name, usd in self._ledger.give_up(key):
            if custom_id not in self:
                self._budget.hold(custom_id, 0.0)
                self._budget.hold(name, usd)
        for one in waiting:
            error = Transient("batch_gone", why, maybe_billed=True)
            error.held_as = f"{one} {key}"
            self.pop(one).fail(error)

    def _cost(self, text: str) -> float | None:
        """A result's cost in US dollars; None when it doesn't say, so that its worst case goes on counting."""
        match self._api.outcome(text):
            case Answer() as usage:
                return self._price.of(usage) if usage.prompt_tokens and not usage.uncounted else None
            case Transient():
                return None
        return 0.0


async def present(call: Callable[[], Awaitable[Result]], looks: int, pause_s: float) -> Result | None:
    """Call the batch API about something that it had; None when it is gone, at so many looks."""
    for _ in range(looks):
        try:
            return await call()
        except RowReject as reject:
            if reject.evidence.get("status") not in GONE:
                raise
        await asyncio.sleep(pause_s)
    return None


class ResultFiles:
    """Reads the files of one batch. `found`: whether they hold any of its results."""

    def __init__(self, api: BatchApi, waiting: WaitingRequests, key: str, wanted: set[str]) -> None:
        self._api, self._waiting, self._key, self._wanted = api, waiting, key, wanted
        self._answered: set[str] = set()
        self._refused: dict[str, str] = {}

    @property
    def found(self) -> bool:
        return bool(self._answered or self._refused)

    async def read(self, file: str) -> bool:
        """Keep a file's answers and wake those who wait for them. A refusal is kept back: another line may be an answer."""
        async with aclosing(self._api.results(file, self._wanted)) as groups:
            async for group in groups:
                new: dict[str, str] = {}
                for custom_id, text in group:
                    if not isinstance(self._api.outcome(text), Answer):
                        self._refused[custom_id] = text
                    elif custom_id not in self._answered:
                        new.setdefault(custom_id, text)
                self._answered.update(new)
                self._waiting.keep(self._key, list(new.items()))
        return True

    def keep_refusals(self) -> None:
        """When all files are read: keep the refusals of requests without an answer."""
        self._waiting.keep(self._key, [(one, text) for one, text in self._refused.items() if one not in self._answered])


class Room:
    """How much of ours a provider takes at a time, learned from its refusals: accounts have a limit on tokens that wait.

    After a batch is refused for lack of room, batches are sent one by one, each when the one before is accepted; when it was
    the only one of ours, they are half as large. Only the sender waits for room; batches that are followed never wait for each
    other. most_requests: per batch, at most.
    """

    def __init__(self, most_requests: int, pause_s: float) -> None:
        self.most_requests = most_requests
        self.refused_in_a_row = 0
        self.is_tight = False
        self._wanted = False
        self._pause_s = pause_s
        self._sent = ""
        self._accepted: asyncio.Future[bool] | None = None

    async def accepted(self, key: str) -> bool:
        """Wait until the provider has accepted the batch that was just sent, or refused it."""
        self._sent, self._accepted = key, asyncio.get_running_loop().create_future()
        return await self._accepted

    def accepts(self, key: str) -> None:
        self.refused_in_a_row = 0
        self._decide(key, True)

    def refuses(self, key: str, size: int, *, lacks_room: bool, alone: bool) -> None:
        """alone: nothing else of ours is there, so that the batch itself may be too large."""
        # Of several batches of one size, the first counts for all.
        self.refused_in_a_row += size <= self.most_requests
        if lacks_room:
            if alone:
                self.most_requests = min(self.most_requests, max(1, size // 2))
            self.is_tight = self._wanted = True
        self._decide(key, False)

    def _decide(self, key: str, accepted: bool) -> None:
        if key == self._sent and self._accepted and not self._accepted.done():
            self._accepted.set_result(accepted)

    async def wait(self, others: Collection[asyncio.Task[Any]], *, now: bool = False) -> None:
        """After a refusal: wait until one of our other batches has ended or, where there is none, a while."""
        if not self._wanted and not now:
            return
        self._wanted = False
        if others:
            await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(self._pause_s)
