"""How many calls at a time, and how many a minute, one model at one address is asked.

Three things hold a call back, whichever row, stage or thread it belongs to:

    window     calls at a time. Starts at the bound that the settings give, is halved when the server shows that it has too
               much to do (429, 503, 529, a time-out), grows by a step a round while calls end well (AIMD, as in TCP).
               Calls that were on their way when it was cut don't cut it again.
    pause      the server's Retry-After: nobody starts before it is over.
    rates      requests and tokens a minute: fixed by settings, told by the server's headers, or learned from refusals.

A `Limiter` belongs to the shared event loop. Waiters are served in the order in which they came.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from weakref import WeakValueDictionary

from pipeline.models import rate_limit_headers
from pipeline.models.pace import Pace
from pipeline.models.provider_errors import Transient
from pipeline.schema import digest

_CUT = 0.5
# The window grows by this share of its bound when every call in it has ended well once.
_STEP = 1 / 16
# A pace lets so many seconds' worth start at once, or timers would decide.
_GRAIN_S = 0.02
_SHORTEST_S = 0.001


class Bucket:
    """An allowance that refills steadily. An infinite rate is no limit."""

    def __init__(self, rate: float = math.inf, capacity: float = 1.0) -> None:
        self.rate = rate
        self._capacity = max(1.0, capacity)
        self._level = self._capacity
        self._at = 0.0
        # All that was ever taken: what a call took is known by the difference.
        self.taken = 0.0

    def delay(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken; an amount above the capacity waits for a full bucket."""
        if self.rate == math.inf:
            return 0.0
        self._fill(now)
        missing = min(amount, self._capacity) - self._level
        return missing / self.rate if missing > 1e-9 else 0.0

    def take(self, amount: float) -> None:
        self.taken += amount
        if self.rate < math.inf:
            self._level -= amount

    def change(self, rate: float, capacity: float, now: float) -> None:
        self._fill(now)
        self.rate, self._capacity = rate, max(1.0, capacity)
        self._level = min(self._level, self._capacity)

    def sync(self, told: rate_limit_headers.Quota, then: float, taken_then: float, now: float) -> None:
        """Take over what the server told of the moment `then`: what was taken since is gone, what it refills is there."""
        self.rate, self._capacity, self._at = told.rate, max(1.0, told.capacity), now
        refilled = min(self._capacity, told.remaining + told.rate * (now - then))
        self._level = refilled - (self.taken - taken_then)

    def _fill(self, now: float) -> None:
        if self.rate < math.inf:
            self._level = min(self._capacity, self._level + (now - self._at) * self.rate)
        self._at = now


class Usage:
    """What share of its worst case a call takes, as learned: the mean and twice the mean deviation."""

    def __init__(self) -> None:
        self._mean: float | None = None
        self._deviation = 0.0

    def expect(self, most: int) -> float:
        return most if self._mean is None else most * min(1.0, self._mean + 2 * self._deviation)

    def learn(self, most: int, used: int) -> None:
        share = used / max(1, most)
        if self._mean is None:
            self._mean = share
        self._deviation += 0.1 * (abs(share - self._mean) - self._deviation)
        self._mean += 0.1 * (share - self._mean)


@dataclass(slots=True)
class Call:
    """One attempt's way through the limiter: `with await limiter.start(most) as call`."""

    limiter: Limiter
    number: int
    started: float
    most: int
    taken: dict[str, float]
    # What its pace said when it started.
    paced: int
    used: int = 0

    def heard(self, headers: Mapping[str, str]) -> None:
        self.limiter.heard(self, headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.limiter.end(self, error)


class Limiter:
    """Lets calls start. `bound`: calls at a time, at most; `rpm`, `tpm`: requests and tokens a minute, at most."""

    def __init__(self, bound: int, rpm: float | None = None, tpm: float | None = None) -> None:
        self.window = float(bound)
        self.pace = Pace()
        self._bound = bound
        self._active = 0
        self._busy_s = 0.0
        self._busy_since = 0.0
        self._numbers = itertools.count()
        self._cut_at = 0
        self._synced_at = -1
        self._paused_until = -math.inf
        self._usage = Usage()
        self._told = {kind: Bucket() for kind in rate_limit_headers.KINDS}
        self._fixed = {"requests": _minute(rpm), "tokens": _minute(tpm)}
        self._learned = Bucket()
        self._waiting: deque[tuple[asyncio.Future[Call], int]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def widen(self, bound: int, rpm: float | None, tpm: float | None) -> None:
        """One more model shares this limiter: the higher bound counts, and the lower of fixed rates."""
        if bound > self._bound:
            self.window += bound - self._bound
            self._bound = bound
        for kind, limit in (("requests", rpm), ("tokens", tpm)):
            if limit and limit / 60 < self._fixed[kind].rate:
                self._fixed[kind] = _minute(limit)

    async def start(self, most: int) -> Call:
        """Wait until a call of at most `most` tokens, prompt and answer, may start."""
        now = time.monotonic()
        if not self._waiting and not self._active:
            self._busy_since = now
        if not self._waiting and self._active < int(self.window) and self._delay(most, now) <= 0:
            return self._grant(most, now)
        waiter: asyncio.Future[Call] = asyncio.get_running_loop().create_future()
        self._waiting.append((waiter, most))
        if self._timer is None:
            self._serve()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.end(waiter.result(), None)
            raise

    def pause(self, seconds: float) -> None:
        """Nobody starts for so long."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def heard(self, call: Call, headers: Mapping[str, str]) -> None:
        """Take over what the server says of its limits, unless a later call has told already."""
        if call.number <= self._synced_at:
            return
        now = time.monotonic()
        for kind, told in rate_limit_headers.read(headers).items():
            self._synced_at = call.number
            self._told[kind].sync(told, call.started, call.taken[kind], now)

    def end(self, call: Call, error: BaseException | None) -> None:
        """A call is over, well or with `error`."""
        self._active -= 1
        if call.used:
            self._usage.learn(call.most, call.used)
        refused = isinstance(error, Transient) and error.status == 429
        if refused or (isinstance(error, Transient) and (error.status in (503, 529) or error.reason == "timed_out")):
            self._congested(call, refused=refused)
        else:
            self.pace.let_in(self._busy())
            # A window that nobody fills says nothing of what the server can bear.
            if self._active + 1 > self.window / 2:
                self.window = min(self._bound, self.window + self._bound * _STEP / self.window)
        if self.pace.rate < math.inf or self._learned.rate < math.inf:
            self._learned.change(self.pace.rate, self.pace.rate * _GRAIN_S, time.monotonic())
        self._serve()
        if not self._active and not self._waiting:
            self._busy_s += time.monotonic() - self._busy_since

    def _busy(self) -> float:
        """Seconds so far in which calls were under way or held back."""
        return self._busy_s + time.monotonic() - self._busy_since

    def _congested(self, call: Call, *, refused: bool) -> None:
        counts = call.number >= self._cut_at
        paced = self._told["requests"].rate < math.inf or self.pace.rate < math.inf
        if refused:
            self.pace.refused(self._busy(), call.paced, counts=counts)
        if not counts:
            return
        self._cut_at = next(self._numbers)
        # With a pace known it is that which was too high; cutting the window as well would starve slow calls.
        if not (refused and paced) or self.pace.overrun:
            self.window = max(1.0, self.window * _CUT)

    def _delay(self, most: int, now: float) -> float:
        if now < self._paused_until:
            return self._paused_until - now
        tokens = self._usage.expect(most)
        told = self._told["requests"].rate < math.inf
        return max(
            self._told["requests"].delay(1, now),
            self._told["tokens"].delay(tokens, now),
            self._fixed["requests"].delay(1, now),
            self._fixed["tokens"].delay(tokens, now),
            # A server that tells its limits need not be learned.
            0.0 if told else self._learned.delay(1, now),
        )

    def _grant(self, most: int, now: float) -> Call:
        self._active += 1
        tokens = self._usage.expect(most)
        for buckets in (self._told, self._fixed):
            buckets["requests"].take(1)
            buckets["tokens"].take(tokens)
        self._learned.take(1)
        taken = {kind: bucket.taken for kind, bucket in self._told.items()}
        return Call(self, next(self._numbers), now, most, taken, self.pace.started())

    def _serve(self) -> None:
        """Start as many waiters as may; if time holds the first back, come again when it has passed."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            waiter, most = self._waiting[0]
            if waiter.done():
                self._waiting.popleft()
                continue
            if self._active >= int(self.window):
                return
            now = time.monotonic()
            delay = self._delay(most, now)
            if delay > 0:
                self._timer = asyncio.get_running_loop().call_later(max(delay, _SHORTEST_S), self._serve)
                return
            self._waiting.popleft()
            waiter.set_result(self._grant(most, now))


def _minute(limit: float | None) -> Bucket:
    """A fixed limit a minute, of which at most a second's worth starts at once."""
    return Bucket(limit / 60, limit / 60) if limit else Bucket()


_limiters: WeakValueDictionary[str, Limiter] = WeakValueDictionary()
_making = threading.Lock()


def limiter_for(identity: Mapping[str, object], bound: int, rpm: float | None, tpm: float | None) -> Limiter:
    """The one limiter of this process for a model at an address, made or widened."""
    key = digest(identity)
    with _making:
        limiter = _limiters.get(key)
        if limiter is None:
            limiter = _limiters[key] = Limiter(bound, rpm, tpm)
        else:
            limiter.widen(bound, rpm, tpm)
        return limiter
