"""A provider that answers through its batch API: half the price, and an answer within a day.

To `ChatModel` it is one more provider. Requests gather in a queue, whatever shard they come from; when no more come for a
while, or a batch is full, they are sent together, looked after until the provider is done, and every caller gets its own
answer, found by custom id. The ledger knows what was sent: a run that was killed finds its batches there.

What becomes of a request:

    a result                               read like a live answer: an Answer, or the same rejects
    expired, cancelled, failed, missing    Transient: asked again, in the next batch
    its whole batch failed                 queued again, without the requests that the provider found fault with
    the batch API itself can't be used     ProviderStopped; what was sent stays in the ledger

A request that the ledger has in a batch is never sent again before that batch has ended without a result for it. Between the
note that a batch will be sent and the provider's id for it lies a moment in which a kill leaves it unknown whether the batch
exists: the provider's list decides (`find`). A batch that is missing from that list would be paid for twice.
"""

from __future__ import annotations

import asyncio
import copy
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.config.reward import RewardSettings
from pipeline.config.settings import PolicySettings, ReviserSettings
from pipeline.errors import CurationError, ProviderStopped, RowReject
from pipeline.models.batch import api as batch_api
from pipeline.models.batch.api import BatchApi, Line, Problem, Waiting, cut, insist, read_result, refusal
from pipeline.models.batch.cost import BatchMoney
from pipeline.models.batch.ledger import Batch, BatchLedger
from pipeline.models.journal import Answer
from pipeline.models.provider_errors import Transient
from pipeline.schema import digest

if TYPE_CHECKING:
    from pipeline.models.chat import ChatRequest

Result = TypeVar("Result")
Settings = PolicySettings | ReviserSettings | RewardSettings


class BatchProvider:
    """Gathers requests and asks them in batches. Belongs to the shared loop, as every provider does.

    `target` is the model with its address. Batches are looked at every `batch_poll_s` seconds, and sent when
    no request came for `batch_quiet_s`. A call to the batch API is tried `attempts` times.
    """

    batched = True

    def __init__(self, api: BatchApi, ledger: BatchLedger, money: BatchMoney, target: str, settings: Settings) -> None:
        self._api = api
        self._ledger = ledger
        self._money = money
        self._target = target
        self._poll_s = settings.batch_poll_s
        self._quiet_s = settings.batch_quiet_s
        self._attempts = settings.attempts
        self._most = api.most_requests
        self._waiting: dict[str, Waiting] = {}
        self._queue: list[str] = []
        self._last_came = 0.0
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failed_in_a_row = 0
        self._strangers: set[str] = set()
        self._adopted = False

    def custom_id(self, request: ChatRequest) -> str:
        if not self._adopted:
            self._adopted = True
            # What earlier runs have sent is looked after, also when no row asks for it: then it is known what it costs.
            for batch in self._ledger.unfinished():
                if batch.model == self._target:
                    self._start(batch.key, self._follow_alone(batch.key))
                    self._money.expect(self._tasks[batch.key])
        # A body may lack the seed, as Anthropic's does: samples of one query are requests of their own all the same.
        return digest(self._target, self._api.body(request), request.params.get("seed"))

    async def complete(self, request: ChatRequest) -> Answer:
        custom_id = self.custom_id(request)
        text = await self._result(custom_id, request)
        try:
            return read_result(self._api, text, request.max_tokens)
        except Transient:
            self._ledger.forget(custom_id)
            raise

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await self._api.close()

    async def _result(self, custom_id: str, request: ChatRequest) -> str:
        known = self._ledger.find(custom_id)
        if known and known.result is not None:
            return known.result
        waiting = self._waiting.get(custom_id)
        if waiting is None:
            waiting = Waiting(self._api.body(request), self._money.most(request), known.batch if known else None)
            self._waiting[custom_id] = waiting
            if known:
                self._start(known.batch, self._follow(known.batch))
            else:
                self._enqueue(custom_id)
        try:
            # Of several that wait for one result, each may be cancelled alone.
            return await asyncio.shield(waiting.future)
        except BaseException as error:
            if waiting.batch and not isinstance(error, Transient):
                self._money.still_out(custom_id, waiting.most)
            raise

    def _enqueue(self, custom_id: str) -> None:
        self._queue.append(custom_id)
        self._last_came = time.monotonic()
        self._start("queue", self._send_when_quiet())

    def _start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` in the background, unless work of that name runs already."""
        running = self._tasks.get(name)
        if running and not running.done():
            work.close()
            return
        self._tasks[name] = asyncio.get_running_loop().create_task(self._guarded(work))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """What ends one batch's care ends the run, so everybody who waits hears of it; the ledger keeps what is sent."""
        try:
            await work
        except BaseException as error:
            waiting, self._waiting, self._queue = self._waiting, {}, []
            for one in waiting.values():
                # A copy: thousands of callers that raise one exception would each add to its traceback.
                one.fail(copy.copy(error) if isinstance(error, CurationError) else error)
            for task in self._tasks.values():
                if task is not asyncio.current_task():
                    task.cancel()
            if not isinstance(error, Exception):
                raise

    # -- sending --------------------------------------------------------------------------------------------------

    async def _send_when_quiet(self) -> None:
        while self._queue:
            while len(self._queue) < self._most and (left := self._last_came + self._quiet_s - time.monotonic()) > 0:
                await asyncio.sleep(left)
            queued, self._queue = self._queue, []
            for lines in cut([(one, self._waiting[one].body) for one in queued], self._most, self._api.most_bytes):
                await self._send(lines)

    async def _send(self, lines: list[Line]) -> None:
        custom_ids = [one for one, _ in lines]
        most = [self._waiting[one].most for one in custom_ids]
        batch = self._ledger.intend(uuid.uuid4().hex, self._target, custom_ids, most)
        for custom_id in custom_ids:
            self._waiting[custom_id].batch = batch.key
        first_try = True

        async def create() -> str:
            nonlocal first_try
            # A call that failed may have reached the provider all the same.
            known = None if first_try else await self._find(batch)
            first_try = False
            try:
                return known or await self._api.create(batch, lines)
            except (RowReject, ProviderStopped):
                self._money.finish(batch.key)
                raise

        self._ledger.name(batch.key, await self._insist(create))
        self._start(batch.key, self._follow(batch.key))

    async def _find(self, batch: Batch) -> str | None:
        return await self._api.find(batch, self._ledger.ids() | self._strangers)

    async def _insist(self, call: Callable[[], Awaitable[Result]]) -> Result:
        """Try a call to the batch API several times."""
        return await self._usable(insist(call, self._attempts))

    async def _usable(self, call: Awaitable[Result]) -> Result:
        """No row is at fault when the batch API fails, so the run stops."""
        try:
            return await call
        except (Transient, RowReject) as error:
            reason = getattr(error, "evidence", {}).get("error", str(error))
            raise ProviderStopped(
                f"{self._target}: the batch API can't be used: {reason}. What was sent is kept in {self._ledger.path.name}; "
                "run the same command again to go on, or with mode=live to do without batches"
            ) from None

    # -- following ------------------------------------------------------------------------------------------------

    async def _follow_alone(self, key: str) -> None:
        """`_follow` a batch that perhaps nobody waits for; then it is no reason to stop when it can't be had."""
        try:
            await self._follow(key)
        except ProviderStopped:
            if self._of(key):
                raise

    async def _follow(self, key: str) -> None:
        """See a batch to its end, and give its results to those who wait for them."""
        uncertain = self._ledger.batch(key).id is None
        if uncertain and not await self._recovered(key):
            self._money.finish(key)
            self._again(key)
            return
        at_end = batch_api.until_ended(self._api, self._ledger, key, poll_s=self._poll_s, attempts=self._attempts)
        look = await self._usable(at_end)
        if look.problems:
            await self._failed(key, look.problems)
            return
        self._failed_in_a_row = 0
        some = [await self._insist(partial(self._collect, key, file)) for file in look.files]
        if uncertain and look.files and not any(some):
            # Found by its size alone, and somebody else's.
            self._strangers.add(str(self._ledger.batch(key).id))
            self._ledger.name(key, None)
            await self._follow(key)
            return
        self._money.finish(key)
        with suppress(Transient, RowReject, ProviderStopped):
            await self._api.discard(look)
        for one in self._of(key):
            error = Transient("batch_item_missing", f"the batch is {look.state}, without a result for this request")
            self._waiting.pop(one).fail(error)

    async def _recovered(self, key: str) -> bool:
        """Whether the provider has a batch that we meant to send when we were killed."""
        batch = self._ledger.batch(key)
        found = await self._insist(lambda: self._find(batch))
        if found is not None:
            self._ledger.name(key, found)
        return found is not None

    async def _collect(self, key: str, file: str) -> bool:
        """Keep a file's results and wake those who wait for them; whether there was any of this batch."""
        mine = set(self._ledger.custom_ids(key))
        some = False
        async with aclosing(batch_api.results(self._api, file, mine)) as groups:
            async for group in groups:
                self._keep(key, group)
                some = True
        return some

    def _keep(self, key: str, results: list[tuple[str, str]]) -> None:
        self._ledger.keep(key, results)
        self._money.unclaimed([(one, text) for one, text in results if one not in self._waiting])
        for custom_id, text in results:
            waiting = self._waiting.pop(custom_id, None)
            if waiting and not waiting.future.done():
                waiting.future.set_result(text)

    async def _failed(self, key: str, problems: Sequence[Problem]) -> None:
        """The provider took none of a batch's requests: those that it names are refused, the others go again."""
        sent = self._ledger.custom_ids(key)
        named = {sent[p.line - 1]: p for p in problems if p.line and p.line <= len(sent)}
        self._keep(key, [(one, json.dumps(refusal(one, p.code, p.message))) for one, p in named.items()])
        self._money.finish(key)
        # Of several batches of one size, the first says it for all.
        self._failed_in_a_row += len(sent) <= self._most
        first = problems[0]
        if not named and (not first.passing or self._failed_in_a_row >= self._attempts):
            raise ProviderStopped(
                f"{self._target}: a batch of {len(sent)} requests failed: {first.code} {first.message}. "
                "Mend the cause and run the same command again: nothing was paid for it"
            )
        if not named:
            self._most = min(self._most, max(1, len(sent) // 2))
            await self._for_a_while(key)
        self._again(key)

    async def _for_a_while(self, key: str) -> None:
        """Until another batch of ours has ended, else for the time between two looks."""
        others = [task for name, task in self._tasks.items() if name not in ("queue", key) and not task.done()]
        if others:
            await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(self._poll_s)

    def _again(self, key: str) -> None:
        for one in self._of(key):
            self._waiting[one].batch = None
            self._enqueue(one)

    def _of(self, key: str) -> list[str]:
        """The requests that somebody waits for and that are in this batch."""
        return [one for one, waiting in self._waiting.items() if waiting.batch == key]
