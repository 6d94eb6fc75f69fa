"""A provider that answers through its batch API: half the price, and an answer within a day.

Requests gather in a queue, whatever shard they come from; when no more arrive for a while, or a batch is full, they are sent
together, and every caller gets its own answer. The ledger keeps what was sent: a run that was killed finds its batches
there. What becomes of a request:

    a result                               read like a live answer: an Answer, or the same rejects
    expired, cancelled, failed, missing    Transient: sent again, in the next batch
    its whole batch failed                 queued again, without the requests that the provider found fault with
    the batch API itself can't be used     ProviderStopped; what was sent stays in the ledger

A request that the ledger has in a batch is never sent again before that batch has ended without a result for it. A kill
between the note that a batch will be sent and the provider's id for it leaves unknown whether it exists: the provider's list
decides (`find`). A batch that is missing from that list would be paid for twice.
"""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.config.settings import PolicySettings, ReviserSettings, RewardSettings
from pipeline.errors import ProviderStopped, RowReject
from pipeline.models.answer import Answer
from pipeline.models.batch.api import BatchApi, Line, Look, Problem, cut, refusal
from pipeline.models.batch.ledger import Batch, BatchLedger
from pipeline.models.batch.waiting import Waiting, WaitingRequests
from pipeline.models.chat import ChatRequest, OnQuotas
from pipeline.models.cost import Budget, Price
from pipeline.models.provider_errors import Transient, reason_of
from pipeline.models.retry import retrying
from pipeline.schema import digest

Result = TypeVar("Result")
Settings = PolicySettings | ReviserSettings | RewardSettings
# A batch is safe while the provider doesn't answer: looks at it are tried so many times longer than other calls.
_PATIENCE = 20


@dataclass(eq=False)
class BatchProvider:
    """Gathers requests and sends them in batches. Belongs to the shared loop. `target` is the model with its address."""

    api: BatchApi
    ledger: BatchLedger
    budget: Budget
    price: Price
    target: str
    settings: Settings

    def __post_init__(self) -> None:
        self._most_requests = self.api.most_requests
        self._waiting = WaitingRequests(self.api, self.ledger, self.budget, self.price)
        self._queue: list[str] = []
        self._last_queued = 0.0
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failed_in_a_row = 0
        self._strangers: set[str] = set()
        self._adopted = False

    def custom_id(self, request: ChatRequest) -> str:
        self._adopt()
        # A body may lack the seed, as Anthropic's does: samples of one query are requests of their own all the same.
        return digest(self.target, self.api.body(request), request.params.get("seed"))

    async def complete(self, request: ChatRequest, on_quotas: OnQuotas) -> Answer:
        custom_id = self.custom_id(request)
        text = await self._result(custom_id, request)
        try:
            return self.api.read_kept(text, request.max_tokens)
        except Transient:
            self.ledger.forget(custom_id)
            raise

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await self.api.close()

    def _adopt(self) -> None:
        """Once, follow what earlier runs have sent, also when no row needs it: its cost frees or takes budget."""
        if self._adopted:
            return
        self._adopted = True
        for batch in self.ledger.unfinished():
            if batch.model == self.target:
                self.budget.expect(1)
                task = self._start(batch.key, self._follow_adopted(batch.key))
                task.add_done_callback(lambda _: self.budget.expect(-1))

    async def _result(self, custom_id: str, request: ChatRequest) -> str:
        known = self.ledger.find(custom_id)
        if known and known.result is not None:
            return known.result
        if custom_id not in self._waiting:
            self._waiting[custom_id] = Waiting(self.api, request, self.price, known.batch if known else None)
            if known:
                self._start(known.batch, self._follow(known.batch))
            else:
                self._enqueue(custom_id)
        return await self._waiting.result(custom_id)

    def _enqueue(self, custom_id: str) -> None:
        self._queue.append(custom_id)
        self._last_queued = time.monotonic()
        self._start("queue", self._send_when_quiet())

    def _start(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` in the background, unless work of that name runs already."""
        running = self._tasks.get(name)
        if running and not running.done():
            work.close()
            return running
        self._tasks[name] = asyncio.get_running_loop().create_task(self._guarded(work))
        return self._tasks[name]

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """When following one batch fails, the run ends: everybody who waits gets the error; the ledger keeps what is sent."""
        try:
            await work
        except BaseException as error:
            self._queue = []
            self._waiting.fail_all(error)
            for task in self._tasks.values():
                if task is not asyncio.current_task():
                    task.cancel()
            if not isinstance(error, Exception):
                raise

    async def _usable(self, call: Callable[..., Awaitable[Result]], *arguments: object, patience: int = 1) -> Result:
        """Call the batch API, several times if need be. No row is at fault when that fails, so the run stops."""
        try:
            result: Result = await retrying(self.settings.attempts * patience)(call, *arguments)
            return result
        except (Transient, RowReject) as error:
            raise ProviderStopped(
                f"{self.target}: the batch API can't be used: {reason_of(error)}. What was sent is kept in "
                f"{self.ledger.path.name}; run the same command again to go on, or with mode=live to do without batches"
            ) from None

    # -- sending --------------------------------------------------------------------------------------------------

    async def _send_when_quiet(self) -> None:
        while self._queue:
            while len(self._queue) < self._most_requests:
                left = self._last_queued + self.settings.batch_quiet_s - time.monotonic()
                if left <= 0:
                    break
                await asyncio.sleep(left)
            queued, self._queue = self._queue, []
            lines = [(one, self._waiting[one].body) for one in queued]
            for part in cut(lines, self._most_requests, self.api.most_bytes):
                await self._send(part)

    async def _send(self, lines: list[Line]) -> None:
        waiting = [self._waiting[one] for one, _ in lines]
        custom_ids = [one for one, _ in lines]
        batch = self.ledger.intend(uuid.uuid4().hex, self.target, custom_ids, [one.most for one in waiting])
        for one in waiting:
            one.batch = batch.key
        first_try = True

        async def create() -> str:
            nonlocal first_try
            # A call that failed may have reached the provider all the same.
            known = None if first_try else await self._find(batch)
            first_try = False
            try:
                return known or await self.api.create(batch, lines)
            except (RowReject, ProviderStopped):
                self._waiting.finish(batch.key)
                raise

        self.ledger.name(batch.key, await self._usable(create))
        self._start(batch.key, self._follow(batch.key))

    async def _find(self, batch: Batch) -> str | None:
        return await self.api.find(batch, self.ledger.ids() | self._strangers)

    # -- following ------------------------------------------------------------------------------------------------

    async def _follow_adopted(self, key: str) -> None:
        """`_follow` an earlier run's batch; a failure stops this run only when one of its rows waits for the batch."""
        try:
            await self._follow(key)
        except ProviderStopped:
            if self._waiting.in_batch(key):
                raise

    async def _follow(self, key: str) -> None:
        """Follow a batch to its end, and hand its results to those who wait for them."""
        batch = self.ledger.batch(key)
        # Killed before the id was noted: the provider may have the batch or not.
        uncertain = batch.id is None
        if uncertain:
            batch_id = await self._usable(self._find, batch)
            if batch_id is None:
                self._waiting.finish(key)
                self._requeue(key)
                return
            self.ledger.name(key, batch_id)
        look = await self._ended(key)
        if look.problems:
            await self._failed(key, look.problems)
            return
        self._failed_in_a_row = 0
        ours = [await self._usable(self._collect, key, file) for file in look.files]
        if uncertain and look.files and not any(ours):
            # Found by its size alone, and another program's.
            self._strangers.add(str(self.ledger.batch(key).id))
            self.ledger.name(key, None)
            await self._follow(key)
            return
        self._waiting.finish(key)
        with suppress(Transient, RowReject, ProviderStopped):
            await self.api.discard(look)
        for one in self._waiting.in_batch(key):
            error = Transient("batch_item_missing", f"the batch is {look.state}, without a result for this request")
            self._waiting.pop(one).fail(error)

    async def _ended(self, key: str) -> Look:
        """Look at a batch until it has ended; the ledger keeps its progress."""
        batch_id = str(self.ledger.batch(key).id)
        last = None
        while True:
            look = await self._usable(self.api.look, batch_id, patience=_PATIENCE)
            if look != last:
                self.ledger.saw(key, look.state, look.done)
                last = look
            if look.ended:
                return look
            await asyncio.sleep(self.settings.batch_poll_s)

    async def _collect(self, key: str, file: str) -> bool:
        """Keep a file's results and wake those who wait for them; whether there was any of this batch."""
        count = 0
        async with aclosing(self.api.results(file, set(self.ledger.custom_ids(key)))) as groups:
            async for group in groups:
                self._waiting.keep(key, group)
                count += len(group)
        return count > 0

    async def _failed(self, key: str, problems: Sequence[Problem]) -> None:
        """The provider took none of a batch's requests: those that it names are refused, the others are sent again."""
        sent = self.ledger.custom_ids(key)
        named = {sent[p.line - 1]: p for p in problems if p.line and p.line <= len(sent)}
        self._waiting.keep(key, [(one, refusal(one, p.code, p.message)) for one, p in named.items()])
        self._waiting.finish(key)
        # Of several batches of one size, the first counts for all.
        self._failed_in_a_row += len(sent) <= self._most_requests
        first = problems[0]
        if not named and (not first.passing or self._failed_in_a_row >= self.settings.attempts):
            raise ProviderStopped(
                f"{self.target}: a batch of {len(sent)} requests failed: {first.code} {first.message}. "
                "Mend the cause and run the same command again: nothing was paid for it"
            )
        if not named:
            self._most_requests = min(self._most_requests, max(1, len(sent) // 2))
            # There may be room at the provider when another batch of ours has ended.
            others = [task for name, task in self._tasks.items() if name not in ("queue", key) and not task.done()]
            if others:
                await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(self.settings.batch_poll_s)
        self._requeue(key)

    def _requeue(self, key: str) -> None:
        for one in self._waiting.in_batch(key):
            self._waiting[one].batch = None
            self._enqueue(one)
