"""How many calls one model at one address gets at a time, and how many a minute.

Three things hold a call back:

    window     calls at a time. Starts at the bound from the settings, is halved when the server is overloaded (503, 529, a
               time-out) and grows by 1/16 of the bound per round of successful calls (AIMD, as in TCP).
    pause      the server's Retry-After: no call starts before it is over.
    rates      requests and tokens a minute: fixed by the settings, announced by the server's headers, or learned from
               refusals (429).

A `Limiter` belongs to the shared event loop. Waiting calls start in the order of their arrival.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Self
from weakref import WeakValueDictionary

from pipeline.errors import ProviderStopped
from pipeline.models.provider_errors import LONG_LIMIT_S, RUN_AGAIN_LATER, Transient
from pipeline.models.request import Quota
from pipeline.schema import digest

KINDS = ("requests", "tokens")
_STEP = 1 / 16
_MARGIN = 1.4
_SHORTEST_WAIT_S = 0.001


class Bucket:
    """A token bucket. An infinite rate is no limit."""

    def __init__(self, rate: float = math.inf, capacity: float = 1.0) -> None:
        self.rate = rate
        self._capacity = max(1.0, capacity)
        self._level = self._capacity
        self._at = 0.0
        # Sum of everything taken; a difference of two values says what was taken in between.
        self.taken = 0.0

    def delay(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken; an amount above the capacity waits for a full bucket."""
        if self.rate == math.inf:
            return 0.0
        self._level = min(self._capacity, self._level + (now - self._at) * self.rate)
        self._at = now
        missing = min(amount, self._capacity) - self._level
        return missing / self.rate if missing > 1e-9 else 0.0

    def take(self, amount: float) -> None:
        self.taken += amount
        self._level -= amount

    def sync(self, quota: Quota, then: float, taken_then: float, now: float) -> None:
        """Adopt the server's state at the moment `then`, less what was taken since, plus what was refilled since."""
        self.rate, self._capacity, self._at = quota.rate, max(1.0, quota.capacity), now
        refilled = min(self._capacity, quota.remaining + quota.rate * (now - then))
        self._level = refilled - (self.taken - taken_then)


class LearnedRate:
    """Calls a second that a server without rate-limit headers admits, learned from its refusals alone.

    Between two refusals it answers just what its limit allows. After a refusal, calls start at nine tenths of the best rate
    measured so, and then faster with the square of the time. When fewer are answered at that lower rate twice in a row,
    the limit has changed or the refusals have another cause: learning starts again.
    """

    _BELOW = 0.9
    _AS_GOOD = 0.93
    _MISSES = 2
    # In so many seconds without a refusal the rate doubles.
    _DOUBLES_S = 20.0
    # A measurement takes at least so many seconds.
    _MEASURES_S = 1.0
    # Timers are not precise: so many seconds' worth may start at once.
    _GRAIN_S = 0.02

    def __init__(self) -> None:
        self.rate = math.inf
        self._best = 0.0
        self._misses = 0
        # Seconds at which the first refusal came, and the last one that was measured.
        self._first = self._since = math.inf
        self._answered = 0
        self._next = 0.0

    def delay(self, now: float) -> float:
        return self._next - now

    def start(self, now: float) -> None:
        rate = self.rate * (1 + (max(0.0, now - self._since) / self._DOUBLES_S) ** 2)
        self._next = max(self._next, now - self._GRAIN_S) + 1 / rate

    def answered(self, started: float) -> None:
        """The call that started at `started` was answered. What a server grants as a first burst doesn't count."""
        self._answered += started >= self._first

    def refused(self, started: float, now: float) -> None:
        """The call that started at `started` was refused. Those from before the last measurement tell nothing new."""
        if self._first == math.inf:
            self._first = self._since = now
        elapsed = now - self._since
        if started < self._since or elapsed < self._MEASURES_S:
            return
        measured = self._answered / elapsed
        self._misses = 0 if measured >= self._AS_GOOD * self._best else self._misses + 1
        self._best = max(self._best, measured)
        if self._misses == self._MISSES:
            self._best = 0.0
        self.rate = self._BELOW * self._best or math.inf
        self._since, self._answered = now, 0


@dataclass(slots=True)
class Call:
    """One attempt's way through the limiter: `with await limiter.start(most) as call`. `used`: tokens, set at its end."""

    limiter: Limiter
    started: float
    most: int
    # What had been taken from the announced quotas when it started.
    taken: dict[str, float]
    used: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.limiter.end(self, error)


class Limiter:
    """Lets calls start, or raises ProviderStopped when that would take long.

    bound: calls at a time, at most; rpm, tpm: requests and tokens a minute, at most.
    """

    def __init__(self, bound: int, rpm: float | None = None, tpm: float | None = None) -> None:
        self.window = 0.0
        self._bound = self._active = 0
        self._cut_at = self._synced_at = self._paused_until = -math.inf
        # The share of its worst case that a call uses: a moving mean.
        self._share: float | None = None
        self._announced = {kind: Bucket() for kind in KINDS}
        self._fixed = {kind: Bucket() for kind in KINDS}
        self.widen(bound, rpm, tpm)
        self.learned = LearnedRate()
        # The waiting call that is next holds it; an asyncio.Lock wakes in the order of arrival.
        self._next = asyncio.Lock()
        self._call_ended = asyncio.Event()

    def widen(self, bound: int, rpm: float | None, tpm: float | None) -> None:
        """One more model shares this limiter: the higher bound counts, and the lower of fixed rates."""
        if bound > self._bound:
            self.window += bound - self._bound
            self._bound = bound
        for kind, limit in (("requests", rpm), ("tokens", tpm)):
            if limit and limit / 60 < self._fixed[kind].rate:
                # At most a second's worth starts at once.
                self._fixed[kind] = Bucket(limit / 60, limit / 60)

    async def start(self, most: int) -> Call:
        """Wait until a call of at most `most` tokens, prompt and answer, may start."""
        async with self._next:
            while (delay := self._delay(most)) > 0:
                if LONG_LIMIT_S < delay < math.inf:
                    hours = f"{delay / 3600:.1f} hours"
                    raise ProviderStopped(
                        f"a limit that the provider announces is used up for {hours}. {RUN_AGAIN_LATER}"
                    )
                self._call_ended.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(delay, _SHORTEST_WAIT_S)):
                        await self._call_ended.wait()
            self._active += 1
            now = time.monotonic()
            for bucket, amount in self._amounts(most):
                bucket.take(amount)
            self.learned.start(now)
            return Call(self, now, most, {kind: bucket.taken for kind, bucket in self._announced.items()})

    def _delay(self, most: int) -> float:
        """Seconds until the pause and all rates let a call start; infinite while the window is full."""
        if self._active >= int(self.window):
            return math.inf
        now = time.monotonic()
        rates = (bucket.delay(amount, now) for bucket, amount in self._amounts(most))
        return max(self._paused_until - now, self.learned.delay(now), *rates)

    def _amounts(self, most: int) -> list[tuple[Bucket, float]]:
        """The buckets that a call takes from, and how much."""
        amounts = {"requests": 1.0, "tokens": self._expected(most)}
        return [(buckets[kind], amounts[kind]) for buckets in (self._announced, self._fixed) for kind in KINDS]

    def _expected(self, most: int) -> float:
        """The tokens of a call, from what earlier ones used, with a margin; at most `most`."""
        return most if self._share is None else most * min(1.0, _MARGIN * self._share)

    def pause(self, seconds: float) -> None:
        """Let no call start for so long."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def announced(self, call: Call, quotas: Mapping[str, Quota]) -> None:
        """Adopt the quotas of `KINDS` in the response to a call, unless a later call's response came first."""
        if not quotas or call.started <= self._synced_at:
            return
        self._synced_at = call.started
        for kind, quota in quotas.items():
            self._announced[kind].sync(quota, call.started, call.taken[kind], time.monotonic())

    def end(self, call: Call, error: BaseException | None) -> None:
        """A call has ended, successfully or with `error`."""
        self._active -= 1
        self._call_ended.set()
        if call.used:
            share = call.used / max(1, call.most)
            self._share = share if self._share is None else self._share + 0.1 * (share - self._share)
        failure = error if isinstance(error, Transient) else None
        if failure and failure.retry_after:
            self.pause(failure.retry_after)
        refused = failure is not None and failure.status == 429
        overloaded = failure is not None and (failure.status in (503, 529) or failure.reason == "timed_out")
        if refused:
            self.learned.refused(call.started, time.monotonic())
        else:
            self.learned.answered(call.started)
        # A known rate was too high, and is corrected: cutting the window as well would starve slow calls.
        rate_known = min(self.learned.rate, self._announced["requests"].rate) < math.inf
        if (refused and not rate_known) or overloaded:
            # Calls that were under way when the window was cut don't cut it again.
            if call.started > self._cut_at:
                self._cut_at = time.monotonic()
                self.window = max(1.0, self.window / 2)
        elif not refused and self._active + 1 > self.window / 2:
            # Only a window that is in use shows that the server can bear it.
            self.window = min(self._bound, self.window + self._bound * _STEP / self.window)


_limiters: WeakValueDictionary[str, Limiter] = WeakValueDictionary()
_lock = threading.Lock()


def limiter_for(identity: Mapping[str, object], bound: int, rpm: float | None, tpm: float | None) -> Limiter:
    """This process's one limiter for a model at an address, created or widened."""
    key = digest(identity)
    with _lock:
        limiter = _limiters.setdefault(key, Limiter(bound, rpm, tpm))
        limiter.widen(bound, rpm, tpm)
        return limiter
