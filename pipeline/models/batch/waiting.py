"""The requests that rows wait for, and the money that requests in batches hold.

A request holds its worst case, in the ledger and the budget, from the note that it will be sent. While a row waits for it,
the row's own reservation replaces this in the budget. A result that no row waits for holds what it cost.
"""

import asyncio
import copy

from pipeline.errors import CurationError, ProviderStopped, RowReject
from pipeline.models.batch.api import BatchApi
from pipeline.models.batch.ledger import BatchLedger
from pipeline.models.chat import ChatRequest, upper_bound_tokens
from pipeline.models.cost import Budget, Price
from pipeline.models.provider_errors import Transient, UselessAnswer


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
        try:
            usage = self._api.read_kept(text, 0)
        except UselessAnswer as useless:
            usage = useless.usage
        except (RowReject, ProviderStopped):
            return 0.0
        except Transient:
            return None
        return self._price.of(usage) if usage.prompt_tokens and not usage.uncounted else None
