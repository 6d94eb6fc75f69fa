"""A provider that answers through its batch API: half the price, and an answer within a day.

Requests gather in a queue, whatever shard they come from; when no more arrive for a while, or a batch is full, they are sent
together, and every caller gets its own answer. The ledger keeps what was sent: a run that was killed finds its batches
there. What becomes of a request:

    a result                               read like a live answer: an Answer, or the same rejects
    expired, cancelled, failed, missing    Transient: sent again, in the next batch
    its whole batch failed                 queued again, without the requests that the provider found fault with
    its batch or result file is gone       sent again; the lost answer counts at its worst case, if it may have been billed
    the batch API itself can't be used     ProviderStopped; what was sent stays in the ledger

A kill between the note that a batch will be sent and the provider's id for it leaves unknown whether it exists: the provider's
list decides (`find`). A batch that is missing from that list would be paid for twice.
"""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from pipeline.config.settings import PolicySettings, ReviserSettings, RewardSettings
from pipeline.errors import ProviderStopped, RowReject
from pipeline.models.adaptation import refused
from pipeline.models.batch.api import BatchApi, Line, Look, Problem, cut, refusal
from pipeline.models.batch.ledger import Batch, BatchLedger
from pipeline.models.batch.waiting import ResultFiles, Room, Waiting, WaitingRequests, present
from pipeline.models.cost import Budget, Price
from pipeline.models.provider_errors import Transient, reason_of, snippet
from pipeline.models.request import Answer, ChatRequest, OnQuotas
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
        self._room = Room(self.api.most_requests, self.settings.batch_poll_s)
        self._waiting = WaitingRequests(self.api, self.ledger, self.budget, self.price)
        self._looks = self.settings.attempts, self.settings.batch_poll_s
        self._queue: list[str] = []
        self._last_queued = 0.0
        self._tasks: dict[str, asyncio.Task[None]] = {}
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
        except (Transient, ProviderStopped):
            self.ledger.forget(custom_id)
            raise
        except RowReject as reject:
            raise refused(reject, text, self.api.sent(request)) from None

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
            raise self._unusable(error) from None

    def _unusable(self, error: Exception) -> ProviderStopped:
        return ProviderStopped(
            f"{self.target}: the batch API can't be used: {reason_of(error)}. What was sent is kept in "
            f"{self.ledger.path.name}; run the same command again to go on, or with mode=live to do without batches"
        )

    # -- sending --------------------------------------------------------------------------------------------------

    async def _send_when_quiet(self) -> None:
        while self._queue:
            while len(self._queue) < self._room.most_requests:
                left = self._last_queued + self.settings.batch_quiet_s - time.monotonic()
                if left <= 0:
                    break
                await asyncio.sleep(left)
            await self._room.wait(self._out())
            queued, self._queue = self._queue, []
            lines = [(one, self._waiting[one].body) for one in queued]
            parts = list(cut(lines, self._room.most_requests, self.api.most_bytes))
            while parts:
                key = await self._send(parts.pop(0))
                if self._room.is_tight and not await self._room.accepted(key):
                    self._queue = [one for part in parts for one, _ in part] + self._queue
                    break

    def _out(self) -> list[asyncio.Task[None]]:
        return [task for name, task in self._tasks.items() if name != "queue" and not task.done()]

    async def _send(self, lines: list[Line]) -> str:
        waiting = [self._waiting[one] for one, _ in lines]
        custom_ids = [one for one, _ in lines]
        batch = self.ledger.intend(uuid.uuid4().hex, self.target, custom_ids, [one.most for one in waiting])
        for one in waiting:
            one.batch = batch.key
        first_try, failures = True, 0

        async def create() -> str:
            nonlocal first_try, failures
            # A call that failed may have reached the provider all the same.
            known = None if first_try else await self._find(batch)
            first_try = False
            try:
                return known or await self.api.create(batch, lines)
            except (RowReject, ProviderStopped):
                self._waiting.finish(batch.key)
                raise
            except Transient as error:
                failures += error.status != 429
                if failures >= self.settings.attempts:
                    raise self._unusable(error) from None
                # Anthropic refuses so what it has no room for.
                if error.status == 429:
                    await self._room.wait(self._out(), now=True)
                raise

        self.ledger.name(batch.key, await self._usable(create, patience=_PATIENCE))
        self._start(batch.key, self._follow(batch.key))
        return batch.key

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
        # Not noted before a kill: the provider may have the batch or not.
        batch_id = batch.id or await self._usable(self._find, batch)
        if batch_id is None:
            self._waiting.finish(key)
            self._requeue(key)
            return
        if batch.id is None:
            self.ledger.name(key, batch_id)
        look = await self._ended(key, batch_id)
        if look is None:
            self._waiting.give_up(key, "the provider knows nothing of the batch any more")
            return
        if look.problems:
            self._failed(key, look.problems)
            return
        files = ResultFiles(self.api, self._waiting, key, set(self.ledger.custom_ids(key)))
        read = [await self._usable(present, partial(files.read, file), *self._looks) for file in look.files]
        files.keep_refusals()
        # Where nothing ran, nothing was billed, and a missing file is none that is lost.
        if look.ran and (not look.files or not all(read)):
            self._waiting.give_up(key, f"the batch is {look.state}, and its results are gone at the provider")
            return
        if batch.id is None and look.files and not files.found:
            # Found by its size alone, and another program's.
            self._strangers.add(batch_id)
            self.ledger.name(key, None)
            await self._follow(key)
            return
        self._waiting.finish(key)
        with suppress(Transient, RowReject, ProviderStopped):
            await self.api.discard(look)
        for one in self._waiting.in_batch(key):
            error = Transient("batch_item_missing", f"the batch is {look.state}, without a result for this request")
            self._waiting.pop(one).fail(error)

    async def _ended(self, key: str, batch_id: str) -> Look | None:
        """Look at a batch until it has ended, None when it is gone; the ledger keeps its progress."""
        last = None
        while True:
            look: Look | None = await self._usable(
                present, partial(self.api.look, batch_id), *self._looks, patience=_PATIENCE
            )
            if look is None or (look.taken and not look.problems):
                self._room.accepts(key)
            if look is None:
                return None
            if look != last:
                self.ledger.saw(key, look.state, look.done)
                last = look
            if look.ended:
                return look
            await asyncio.sleep(self.settings.batch_poll_s)

    def _failed(self, key: str, problems: Sequence[Problem]) -> None:
        """The provider took none of a batch's requests: those that it names are refused, the others are sent again."""
        sent = self.ledger.custom_ids(key)
        named = {sent[p.line - 1]: p for p in problems if p.line and p.line <= len(sent)}
        self._waiting.keep(key, [(one, refusal(one, p.code, p.message)) for one, p in named.items()])
        self._waiting.finish(key)
        first = problems[0]
        alone = not [task for task in self._out() if task is not self._tasks.get(key)]
        self._room.refuses(key, len(sent), lacks_room=not named and first.passing, alone=alone)
        if not named and (not first.passing or self._room.refused_in_a_row >= self.settings.attempts * _PATIENCE):
            raise ProviderStopped(
                f"{self.target}: a batch of {len(sent)} requests failed: {snippet(f'{first.code} {first.message}', 300)}. "
                "Mend the cause and run the same command again: nothing was paid for it"
            )
        self._requeue(key)

    def _requeue(self, key: str) -> None:
        for one in self._waiting.in_batch(key):
            self._waiting[one].batch = None
            self._enqueue(one)
