"""Ask a language model: journal first, then budget, then the provider's own SDK with our retries around it, not its own.

What a failure means is said in `provider_errors.py`, how often a call is tried in `retry.py`. A model that is loading is waited
for up to timeout_s. A stage whose first 8 rows fail alike, or 12 in a row, ends the run, resumable.

Every attempt is paid for itself: an answer, also a useless one, costs what its usage says; a refused call nothing. A call
that was sent and ended without a response (time-out, lost connection, half an answer) may have been billed: it counts at its
most, and the journal marks it as uncertain. A server that bills above the limits of a call raises what is set aside for
this model's further calls by as much.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pipeline.errors import BudgetReached, ProviderStopped, RowReject
from pipeline.models import event_loop
from pipeline.models.adaptation import Adaptation
from pipeline.models.cost import Budget, Price
from pipeline.models.event_loop import Result, Row
from pipeline.models.journal import Journal
from pipeline.models.limiter import Limiter
from pipeline.models.provider_errors import FINAL, Transient, UselessAnswer
from pipeline.models.reading import REASONED_ONLY, reread
from pipeline.models.request import Answer, Changes, ChatRequest, OnQuotas, Provider, upper_bound_tokens
from pipeline.models.retry import Breaker, retrying
from pipeline.schema import digest

_BUDGET_POLL_S = 0.02
# Tokens for thoughts of a model that thinks, where `reasoning_tokens` doesn't say.
THOUGHT_TOKENS = 8192
_LEAST_ROOM = 512
# How servers say that the limit is beyond what the model has room for.
_TOO_LARGE = re.compile(
    r"context|(?:maximum|at most|too large|exceed|less than|>).*token|token.*(?:maximum|too large)", re.I
)
# Characters of a token, on average over a text: words are shorter, only runs of blanks or dashes come near.
_LONGEST = 64

OnProgress = Callable[[int, int], None]
"""Called as rows end: number of rows, number of them rejected."""


@dataclass(eq=False)
class ChatModel:
    """A model that answers. `ask` may be called from many coroutines of the shared loop.

    connect is called once, in a thread, before the first call that the journal can't answer: what is in the journal
    needs no network, no key and no local server.
    """

    name: str
    identity: dict[str, Any]
    connect: Callable[[], Provider]
    journal: Journal
    budget: Budget
    price: Price
    limiter: Limiter
    adaptation: Adaptation
    concurrency: int
    attempts: int
    # Held by a stage during a shard's calls.
    shard_lock: AbstractContextManager[Any]
    # How long a server that is loading its model is waited for.
    patience_s: float = 0.0
    # The setting; None: `THOUGHT_TOKENS` once the model is known to think, which its answers show.
    reasoning_tokens: int | None = None
    thinks: bool = False

    def __post_init__(self) -> None:
        self.adaptation.thinks |= self.thinks
        self.calls = 0
        self._slots = asyncio.Semaphore(self.concurrency)
        self._provider: Provider | None = None
        self._connecting = asyncio.Lock()
        check = "the model's name and its address"
        self.breaker = Breaker(self.name, "rows", check, lambda stage: self.journal.has_answer(stage, self.name))
        self._noted = self.journal.overruns().get(self.name, 1.0)
        self.budget.expect_more(self.name, self._noted)

    async def ask(self, stage: str, request: ChatRequest) -> Answer:
        """The model's answer, from the journal if it has one. Thoughts have `room` on top of the request's max_tokens.

        An answer cut at its limit is returned as such (finish `length`) and requested again only with a higher one, as
        when this very answer shows that the model thinks. Raises RowReject, BudgetReached or ProviderStopped.
        """
        while True:
            known = self._journalled(request)
            self.adaptation.thinks |= known is not None and known.reasoned
            room = self.room
            limited = replace(request, max_tokens=request.max_tokens + room, thought_tokens=room)
            try:
                answer = await self._ask(stage, known, limited)
            except UselessAnswer as reject:
                self.adaptation.thinks |= reject.usage.reasoned or reject.reason == REASONED_ONLY
                if reject.reason != REASONED_ONLY or self.room == room:
                    self.breaker.failed_alike(stage, reject)
                    raise
                continue
            self.breaker.started(stage)
            self.adaptation.thinks |= answer.reasoned
            if answer.finish == "stop" or self.room == room:
                return answer

    @property
    def room(self) -> int:
        """Tokens for thoughts, on top of an answer's max_tokens."""
        if self.reasoning_tokens is not None:
            return self.reasoning_tokens
        return THOUGHT_TOKENS if self.adaptation.thinks else 0

    async def _ask(self, stage: str, known: Answer | None, request: ChatRequest) -> Answer:
        if known and _fits(known, request.max_tokens):
            self.breaker.answered = True
            return reread(known)
        provider = self._provider or await self._connected()

        async def send(changes: Changes) -> Answer:
            changed = replace(request, changes=changes)
            key = self._key(changed)
            # Answered after a refusal in an earlier run, whose notes are gone.
            if (
                changes != self.adaptation.changes
                and (kept := self.journal.get(key))
                and _fits(kept, request.max_tokens)
            ):
                return reread(kept)
            tries = retrying(self.attempts, self.patience_s)
            answer: Answer = await tries(self._attempt, provider, stage, key, changed)
            return answer

        with self.breaker.watch(stage, attempts=self.attempts):
            return await self.adaptation.accepted(send)

    def _key(self, request: ChatRequest) -> str:
        # max_tokens is not part of the key: it decides only whether an answer was cut, which `_fits` judges.
        changes = [request.changes] if request.changes else []
        return digest(self.identity, request.messages, request.params, *changes)

    def _journalled(self, request: ChatRequest) -> Answer | None:
        """The answer to a request, in whatever form the server took it."""
        forms = (replace(request, changes=changes) for changes in self.adaptation.variants())
        return next(filter(None, (self.journal.get(self._key(form)) for form in forms)), None)

    def each_row(
        self,
        rows: Sequence[Row],
        work: Callable[[Row], Awaitable[Result]],
        on_progress: OnProgress = lambda rows, bad: None,
    ) -> list[Result | RowReject]:
        """`event_loop.each_row` over a shard. Raises ProviderStopped when all calls failed on the provider's side."""
        with self.shard_lock:
            results = event_loop.each_row(
                rows, work, workers=self.concurrency, done=lambda rejected: on_progress(1, int(rejected))
            )
            self.breaker.raise_if_all_failed()
        return results

    async def _connected(self) -> Provider:
        async with self._connecting:
            if self._provider is None:
                self._provider = await asyncio.to_thread(self.connect)
                # Unclosed, the SDK's connections complain when the process ends.
                event_loop.at_exit(self._provider.close)
            return self._provider

    async def _attempt(self, provider: Provider, stage: str, key: str, request: ChatRequest) -> Answer:
        """One try, with less room for thoughts where the model's context has no place for all of it."""
        try:
            return await self._limited(provider, stage, key, request)
        except RowReject as reject:
            room = request.thought_tokens // 2
            said = str(reject.evidence.get("error"))
            if self.reasoning_tokens is not None or room < _LEAST_ROOM or not _TOO_LARGE.search(said):
                raise
            less = replace(request, max_tokens=request.max_tokens - request.thought_tokens + room, thought_tokens=room)
        return await self._attempt(provider, stage, key, less)

    async def _limited(self, provider: Provider, stage: str, key: str, request: ChatRequest) -> Answer:
        """A call within the limits on calls; a batch has none."""
        custom_id = provider.custom_id(request)
        if custom_id is not None:
            return await self._paid(provider, stage, key, request, custom_id, lambda quotas: None)
        async with self._slots:
            with await self.limiter.start(upper_bound_tokens(request) + request.max_tokens) as call:
                answer = await self._paid(provider, stage, key, request, None, partial(self.limiter.announced, call))
                call.used = answer.prompt_tokens + answer.completion_tokens
                return answer

    async def _paid(
        self, provider: Provider, stage: str, key: str, request: ChatRequest, custom_id: str | None, on_quotas: OnQuotas
    ) -> Answer:
        """Reserve the most that the call can cost, make it, and journal its answer and its cost before they are used."""
        reserved = await self._reserve(self.price.most(upper_bound_tokens(request), request.max_tokens), custom_id)
        self.calls += 1
        # None is what a cancelled call costs: at most everything. A batch goes on without us: its ledger keeps what it holds.
        cost = None if custom_id is None else 0.0
        began: int | None = None
        try:
            # A killed process leaves its calls charged. Batches have a ledger for that.
            if reserved and custom_id is None:
                began = await self.journal.begin(stage, self.name, self._most(reserved))
            answer = await provider.complete(request, on_quotas)
            cost = self._cost(request, answer, reserved)
            await self._keep(key, stage, answer, cost, custom_id, began)
            return answer
        except UselessAnswer as reject:
            cost = self._cost(request, reject.usage, reserved)
            await self._keep(key, stage, reject.to_journal(), cost, custom_id, began)
            raise
        except (RowReject, Transient, ProviderStopped) as failure:
            certain = not (isinstance(failure, Transient) and failure.maybe_billed)
            cost = 0.0 if certain else self._lost(request, failure, reserved)
            await self._note_overrun()
            # The ledger forgets a result that is worth another try: that one goes into another batch.
            paid = custom_id if isinstance(failure, RowReject) else getattr(failure, "held_as", None)
            reason = "stopped" if isinstance(failure, ProviderStopped) else failure.reason
            await self.journal.charge(stage, self.name, reason, cost, certain=certain, custom_id=paid, began=began)
            raise
        finally:
            self.budget.settle(reserved, self._most(reserved) if cost is None else cost, self.name)

    async def _keep(
        self, key: str, stage: str, answer: Answer, cost: float, custom_id: str | None, began: int | None
    ) -> None:
        await self._note_overrun()
        await self.journal.keep(key, stage, self.name, answer, cost, custom_id=custom_id, began=began)

    async def _note_overrun(self) -> None:
        overrun = self.budget.overrun(self.name)
        if overrun > self._noted:
            self._noted = overrun
            await self.journal.note_overrun(self.name, overrun)

    def _most(self, reserved: float) -> float:
        """What a call can cost at most, with `reserved` for it, by what is known of the server now."""
        return reserved * self.budget.overrun(self.name)

    def _lost(self, request: ChatRequest, failure: Exception, reserved: float) -> float:
        """What a call may have cost that gave no answer."""
        usage = failure.usage if isinstance(failure, Transient) else None
        return self._cost(request, replace(usage, uncounted=True), reserved) if usage else self._most(reserved)

    def _cost(self, request: ChatRequest, answer: Answer, reserved: float) -> float:
        """What an answer cost: by its tokens, and at least the most that it could where their count can't be right."""
        prompt, limit, cost = upper_bound_tokens(request), max(1, request.max_tokens), self.price.of(answer)
        if reserved and self.price.most(prompt, limit):
            above = (
                answer.prompt_tokens / prompt,
                answer.completion_tokens / limit,
                cost / self.price.most(prompt, limit),
            )
            self.budget.expect_more(self.name, max(above))
        written = len(answer.text) + len(answer.reasoning or "")
        read = sum(len(message["content"]) for message in request.messages)
        believable = 0 < answer.prompt_tokens >= read / _LONGEST and answer.completion_tokens >= written / _LONGEST
        return cost if believable and not answer.uncounted else max(cost, self._most(reserved))

    async def _reserve(self, most: float, custom_id: str | None) -> float:
        """Take `most`, or what is held for `custom_id`, from the budget; returns the sum taken.

        When it doesn't fit, wait for the calls in flight first: they may cost less than was reserved for them.
        """
        poll_s = _BUDGET_POLL_S
        while True:
            may_come_back = self.budget.in_flight
            try:
                return self.budget.reserve(most, custom_id, self.name)
            except BudgetReached:
                if not may_come_back:
                    self.budget.close()
                    raise
            await asyncio.sleep(poll_s)
            # Thousands may wait here for a batch, for hours.
            poll_s = min(2 * poll_s, 1.0)


def _fits(answer: Answer, max_tokens: int) -> bool:
    """Whether a journalled answer is the one that a call with this max_tokens would get."""
    if answer.finish == "stop":
        # Some servers count more tokens than they were allowed.
        return answer.max_tokens <= max_tokens or answer.completion_tokens <= max_tokens
    # With more room it might be whole, or not be empty; what was refused stays so.
    return answer.max_tokens >= max_tokens or answer.finish in FINAL
