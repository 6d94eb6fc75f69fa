"""What requests in batches hold of the budget, from the note that they will be sent until their cost is in the journal.

The ledger keeps it for the next process, the budget for this one. While a row waits for a request its own reservation stands
in the budget instead. A result that no row asks for holds what it cost, as nothing else counts it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from pipeline.errors import RowReject
from pipeline.models.batch.api import BatchApi, read_result
from pipeline.models.batch.ledger import BatchLedger
from pipeline.models.chat import ChatRequest, upper_bound_tokens
from pipeline.models.cost import Budget, Price
from pipeline.models.provider_errors import Transient, UselessAnswer


class BatchMoney:
    """The money side of one model's batches."""

    def __init__(self, api: BatchApi, ledger: BatchLedger, budget: Budget, price: Price | None) -> None:
        self._api = api
        self._ledger = ledger
        self._budget = budget
        self._price = price or Price(0, 0, 0)

    def most(self, request: ChatRequest) -> float:
        return self._price.most(upper_bound_tokens(request), request.max_tokens)

    def expect(self, task: asyncio.Task[None]) -> None:
        """Until the task is done, rows that find no money left wait for what it may give back."""
        self._budget.expect(1)
        task.add_done_callback(lambda _: self._budget.expect(-1))

    def still_out(self, custom_id: str, most: float) -> None:
        """Nobody waits for it any more, and it will be billed."""
        self._budget.hold(custom_id, most)

    def finish(self, key: str) -> None:
        """Close a batch in the ledger: what it didn't answer costs nothing."""
        for custom_id in self._ledger.finish(key):
            self._budget.hold(custom_id, 0.0)

    def unclaimed(self, results: Sequence[tuple[str, str]]) -> None:
        """Results, (custom id, JSON), that no row waits for: from now on they hold what they cost."""
        costs = [(one, cost) for one, text in results if (cost := self._cost(text)) is not None]
        self._ledger.hold(costs)
        for custom_id, cost in costs:
            self._budget.hold(custom_id, cost)

    def _cost(self, text: str) -> float | None:
        """US dollars; None when the result doesn't tell, so that its worst case goes on counting."""
        usage = None
        with suppress(Transient):
            try:
                usage = read_result(self._api, text, 0)
            except UselessAnswer as useless:
                usage = useless.usage
            except RowReject:
                return 0.0
        return self._price.of(usage) if usage and usage.prompt_tokens else None
