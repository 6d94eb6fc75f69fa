"""Every chat call that reached the server, exact and readable from any thread.

Two words that tests of money and of crashes turn on:

    completed   a well-formed 200 answer was handed to the socket whole
    billed      the model did the work (`usage` is set), whether or not the answer arrived well: a half body, a reset
                after the headers or a caller that left during the latency is billed, as a real provider would

A caller killed with -9 may leave one or the other; the difference is at most its calls in flight.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from tests.loopback.chat import ChatRequest, Usage


@dataclass(slots=True)
class Call:
    """`number` counts arrivals from 1; `attempt` counts the calls with this `key` so far, this one included."""

    number: int
    time: float
    provider: str
    model: str = ""
    key: str = ""
    attempt: int = 0
    fault: str | None = None
    status: int | None = None
    completed: bool = False
    usage: Usage | None = None
    limited: bool = False
    seconds: float = 0.0

    @property
    def billed(self) -> bool:
        return self.usage is not None


class Ledger:
    """Written by the server's loop, read by whoever likes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forget all calls and count from 1 again. Calls now in flight finish uncounted."""
        with self._lock:
            self._calls: list[Call] = []
            self._attempts: Counter[str] = Counter()
            self._open: set[int] = set()
            self._peak = 0

    def arrive(self, provider: str) -> Call:
        with self._lock:
            call = Call(len(self._calls) + 1, time.time(), provider)
            self._calls.append(call)
            self._open.add(id(call))
            self._peak = max(self._peak, len(self._open))
        return call

    def identify(self, call: Call, request: ChatRequest) -> None:
        with self._lock:
            self._attempts[request.key] += 1
            call.model, call.key, call.attempt = request.model, request.key, self._attempts[request.key]

    def leave(self, call: Call) -> None:
        with self._lock:
            call.seconds = time.time() - call.time
            self._open.discard(id(call))

    @property
    def calls(self) -> list[Call]:
        """A copy of the list; the records themselves are live until their call has left."""
        with self._lock:
            return list(self._calls)

    @property
    def in_flight(self) -> int:
        with self._lock:
            return len(self._open)

    @property
    def in_flight_peak(self) -> int:
        with self._lock:
            return self._peak

    def stats(self, *, with_calls: bool = False) -> dict[str, Any]:
        """Plain JSON values; what `GET /_stats` sends."""
        calls = self.calls
        completed = [call for call in calls if call.completed]
        stats: dict[str, Any] = {
            "calls": len(calls),
            "completed": len(completed),
            # Fewer distinct than completed: someone paid twice for one request.
            "completed_distinct": len({call.key for call in completed}),
            "billed": sum(call.billed for call in calls),
            "limited": sum(call.limited for call in calls),
            "in_flight": self.in_flight,
            "in_flight_peak": self.in_flight_peak,
            "statuses": dict(Counter(str(call.status) for call in calls)),
            "faults": dict(Counter(call.fault for call in calls if call.fault)),
            "completed_usage": asdict(total_usage(completed)),
            "billed_usage": asdict(total_usage(calls)),
            "models": {},
        }
        for name in sorted({f"{call.provider}/{call.model}" for call in calls}):
            own = [call for call in calls if f"{call.provider}/{call.model}" == name]
            stats["models"][name] = {
                "calls": len(own),
                "completed": sum(call.completed for call in own),
                "billed_usage": asdict(total_usage(own)),
            }
        if with_calls:
            stats["records"] = [asdict(call) for call in calls]
        return stats


def total_usage(calls: list[Call]) -> Usage:
    usages = [call.usage for call in calls if call.usage is not None]
    return Usage(
        sum(usage.input_tokens for usage in usages),
        sum(usage.output_tokens for usage in usages),
        sum(usage.cached_tokens for usage in usages),
    )
