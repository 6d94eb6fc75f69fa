"""Requests and tokens a minute, the way providers count them: two buckets that refill steadily.

A bucket holds `burst_seconds` of its rate. With the default 60, a whole minute's allowance may be spent at once, as at
the real providers; a short test that wants to see the limit bite sets 1 or so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Level:
    limit: int
    remaining: int
    reset_seconds: float


@dataclass(frozen=True, slots=True)
class LimitState:
    """What the headers tell. `None` where there is no limit."""

    requests: Level | None = None
    tokens: Level | None = None


class Bucket:
    """Not thread-safe: it belongs to the server's loop."""

    def __init__(self, per_minute: int, burst_seconds: float, clock: Callable[[], float]) -> None:
        self._rate = per_minute / 60
        # A bucket that can't hold one request would never let one through.
        self._capacity = max(1.0, self._rate * burst_seconds)
        self._limit = per_minute
        self._level = self._capacity
        self._clock = clock
        self._at = clock()

    def wait_for(self, amount: float) -> float:
        """Seconds until `amount` can be taken; 0 means now. An amount above capacity waits for a full bucket."""
        now = self._clock()
        self._level = min(self._capacity, self._level + (now - self._at) * self._rate)
        self._at = now
        missing = min(amount, self._capacity) - self._level
        # A caller that waited just as long as it was told may lack a rounding error.
        return missing / self._rate if missing > 1e-6 else 0.0

    def take(self, amount: float) -> None:
        self._level -= amount

    def state(self) -> Level:
        return Level(self._limit, max(0, int(self._level)), max(0.0, (self._capacity - self._level) / self._rate))


class RateLimiter:
    """Admits a call when both buckets allow it and charges both, or charges neither and says how long to wait."""

    def __init__(
        self,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        *,
        burst_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requests = Bucket(requests_per_minute, burst_seconds, clock) if requests_per_minute else None
        self._tokens = Bucket(tokens_per_minute, burst_seconds, clock) if tokens_per_minute else None

    def admit(self, tokens: int) -> tuple[float, str]:
        """(seconds to wait, which limit): 0 seconds means admitted and charged."""
        waits = [
            (bucket.wait_for(amount), name)
            for bucket, amount, name in ((self._requests, 1, "requests"), (self._tokens, tokens, "tokens"))
            if bucket is not None
        ]
        wait, name = max(waits, default=(0.0, ""))
        if wait <= 0:
            if self._requests is not None:
                self._requests.take(1)
            if self._tokens is not None:
                self._tokens.take(tokens)
        return wait, name

    def state(self) -> LimitState:
        return LimitState(
            self._requests.state() if self._requests else None,
            self._tokens.state() if self._tokens else None,
        )
