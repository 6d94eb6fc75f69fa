"""Ask a language model: journal first, then budget, then the provider's own SDK with our retries around it.

One code path for OpenAI, anything that speaks its API (self-hosted servers, the embedded models) and Anthropic. The SDKs'
own retries are off: tenacity is the one owner. What becomes of a call:

    answered                                   journalled, returned
    408 409 429 5xx, connection, time-out      tried again, Retry-After honoured, then RowReject
    HTML or broken JSON with status 200        tried again, then RowReject
    400 404 422, refusal, filter, empty        RowReject with its own reason
    401 402 403, or many failures in a row     ProviderStopped: the run ends, resumable

What is paid, every attempt for itself: an answer, also a useless one, what its usage says; a refused call nothing. A call
that was sent and ended without a word (time-out, lost connection, half an answer) may have been billed: it counts at its
most, so that the cap holds, and the journal marks it as uncertain.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

from pipeline.errors import BudgetReached, ProviderStopped, RowReject
from pipeline.models import event_loop
from pipeline.models.cost import Budget, Price
from pipeline.models.journal import Answer, Journal
from pipeline.models.limiter import Limiter
from pipeline.models.provider_errors import Transient, UselessAnswer
from pipeline.models.providers import Batched, Provider, on_headers
from pipeline.models.retry import LONGEST_WAIT_S, Breaker, retrying
from pipeline.schema import digest

_LOOK_S = 0.02
# Journalled as what no higher max_tokens would change.
_FINAL = ("refused", "content_filter")
# What a chat template writes around the messages; some bring a system prompt of their own.
_TEMPLATE_TOKENS = 64


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """Everything that is sent, but for the model. `params` are the SDK's names: temperature, seed, response_format, …"""

    messages: list[dict[str, str]]
    max_tokens: int
    params: dict[str, Any] = field(default_factory=dict)


class ChatModel:
    """A model that answers. `ask` may be called from many coroutines of the shared loop.

    connect is called once, in a thread, before the first call that the journal can't answer: what is in the journal
    needs no network, no key and no local server.
    """

    def __init__(
        self,
        name: str,
        identity: dict[str, Any],
        connect: Callable[[], Provider],
        *,
        journal: Journal,
        budget: Budget,
        price: Price | None,
        limiter: Limiter,
        concurrency: int,
        attempts: int,
        one_shard_at_a_time: bool = False,
    ) -> None:
        self.name = name
        # Held by a stage while it asks for a shard's rows. Local servers keep a row's prompt in their cache: rows of two
        # shards would push each other's out, and with it what makes their answers repeatable.
        self.turn: AbstractContextManager[Any] = threading.Lock() if one_shard_at_a_time else nullcontext()
        self.concurrency = concurrency
        self.calls = 0
        # What the server found wrong with the last row that it refused.
        self.refusal = ""
        self._identity = identity
        self._connect = connect
        self._journal = journal
        self._budget = budget
        self._price = price or Price(0, 0, 0)
        self._attempts = attempts
        self._limiter = limiter
        self._slots = asyncio.Semaphore(concurrency)
        self._provider: Provider | None = None
        self._connecting = asyncio.Lock()
        self._breaker = Breaker(name, "rows")

    async def ask(self, stage: str, request: ChatRequest) -> Answer:
        """The model's answer, from the journal if it was given before.

        An answer cut at max_tokens is returned as such (finish `length`) and asked for again only with a higher
        max_tokens. Raises RowReject, BudgetReached or ProviderStopped.
        """
        # max_tokens is not part of the key: it decides only whether an answer was cut, which `_fits` judges.
        key = digest(self._identity, request.messages, request.params)
        known = self._journal.get(key)
        if known and self._fits(known, request.max_tokens):
            self._breaker.heard()
            if known.finish not in ("stop", "length"):
                raise UselessAnswer.kept(known)
            return known
        provider = self._provider or await self._connected()
        try:
            answer = await self._insisting(provider, stage, key, request)
        except Transient as error:
            self._breaker.fails(str(error))
            reject = RowReject(error.reason, model=self.name, error=str(error), attempts=self._attempts)
            raise reject.mark_retryable() from None
        except RowReject as reject:
            # A 404 is no row's fault: the model or the address is wrong. Any other reject shows that the provider works.
            if reject.evidence.get("status") == 404:
                self._breaker.fails(f"status 404: {reject.evidence['error']} (check the model's name and its address)")
                raise reject.mark_retryable() from None
            if reject.reason == "bad_request":
                self.refusal = f"status {reject.evidence['status']}: {reject.evidence['error']}"
            self._breaker.works()
            raise
        self._breaker.works()
        return answer

    def insist(self) -> None:
        """At the end of a stage: raises ProviderStopped when all calls have failed on the provider's side, however few."""
        self._breaker.insist()

    async def _insisting(self, provider: Provider, stage: str, key: str, request: ChatRequest) -> Answer:
        """The call, with tries as many and as far apart as the settings and the server say."""
        failed: Transient | None = None
        try:
            return await self._attempt(provider, stage, key, request)
        except Transient as error:
            failed = error

        # tenacity is told of the first try only when that failed: it costs a twentieth of a call.
        async def attempt() -> Answer:
            nonlocal failed
            if failed:
                first, failed = failed, None
                raise first
            return await self._attempt(provider, stage, key, request)

        return await retrying(self._attempts)(attempt)

    async def _attempt(self, provider: Provider, stage: str, key: str, request: ChatRequest) -> Answer:
        """One call, when its turn has come."""
        most = upper_bound_tokens(request)
        if provider.batched:
            return await self._paid(provider, stage, key, request, most)
        async with self._slots:
            with await self._limiter.start(most + request.max_tokens) as call:
                on_headers.set(call.heard)
                try:
                    answer = await self._paid(provider, stage, key, request, most)
                except Transient as error:
                    if error.retry_after:
                        self._limiter.pause(min(error.retry_after, LONGEST_WAIT_S))
                    raise
                call.used = answer.prompt_tokens + answer.completion_tokens
                return answer

    async def _paid(self, provider: Provider, stage: str, key: str, request: ChatRequest, prompt_tokens: int) -> Answer:
        """Set the most that the call can cost aside, make it, and write down what it gave and cost before that is used."""
        most = self._price.most(prompt_tokens, request.max_tokens)
        custom_id = cast(Batched, provider).custom_id(request) if provider.batched else None
        reserved = await self._reserve(most, custom_id)
        self.calls += 1
        cost = 0.0
        began: int | None = None
        try:
            # A killed process leaves its calls charged. Batches have a ledger for that.
            if most and not provider.batched:
                began = await self._journal.begin(stage, self.name, most)
            answer = await provider.complete(request)
            cost = self._cost(answer, most)
        except UselessAnswer as reject:
            cost = self._cost(reject.usage, most)
            await self._journal.keep(key, stage, self.name, reject.to_keep(), cost, custom_id=custom_id, began=began)
            raise
        except (RowReject, Transient, ProviderStopped) as failure:
            certain = not (isinstance(failure, Transient) and failure.maybe_billed)
            cost = 0.0 if certain else most
            # What is worth another try is forgotten there, and goes into another batch.
            paid = custom_id if isinstance(failure, RowReject) else None
            reason = "stopped" if isinstance(failure, ProviderStopped) else failure.reason
            await self._journal.charge(stage, self.name, reason, cost, certain=certain, custom_id=paid, began=began)
            raise
        except asyncio.CancelledError:
            # A batch goes on without us, and is found again; the journal has a live call as interrupted.
            cost = 0.0 if provider.batched else most
            raise
        else:
            await self._journal.keep(key, stage, self.name, answer, cost, custom_id=custom_id, began=began)
            return answer
        finally:
            self._budget.settle(reserved, cost)

    def _cost(self, answer: Answer, most: float) -> float:
        """What an answer cost; a server that counted no tokens may bill anything up to `most`."""
        return self._price.of(answer) if answer.prompt_tokens else most

    async def _reserve(self, most: float, name: str | None) -> float:
        """Take `most`, or what is held for `name`, from the budget; what was taken.

        When it doesn't fit, the calls in flight end first, and may give some back.
        """
        look_s = _LOOK_S
        while self._budget.in_flight:
            try:
                return self._budget.reserve(most, name)
            except BudgetReached:
                await asyncio.sleep(look_s)
                # Thousands may wait here for a batch, for hours.
                look_s = min(2 * look_s, 1.0)
        try:
            return self._budget.reserve(most, name)
        except BudgetReached:
            self._budget.close()
            raise

    @staticmethod
    def _fits(answer: Answer, max_tokens: int) -> bool:
        if answer.finish == "stop":
            # Some servers count more tokens than they were allowed.
            return answer.max_tokens <= max_tokens or answer.completion_tokens <= max_tokens
        # With more room it might be whole, or not be empty; what was refused stays so.
        return answer.max_tokens >= max_tokens or answer.finish in _FINAL

    async def _connected(self) -> Provider:
        async with self._connecting:
            if self._provider is None:
                self._provider = await asyncio.to_thread(self._connect)
                # Unclosed, the SDK's connections complain when the process ends.
                event_loop.at_exit(self._provider.close)
            return self._provider


def upper_bound_tokens(request: ChatRequest) -> int:
    """No tokenizer makes more tokens than a text has UTF-8 bytes; a few more a message for the template.

    Parameters count as well: a schema to answer in is put into the prompt by the provider, and billed.
    """
    texts = sum(len(m["content"].encode("utf-8", "surrogatepass")) + 16 for m in request.messages)
    return texts + len(json.dumps(request.params)) + _TEMPLATE_TOKENS
