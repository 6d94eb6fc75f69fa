"""What calls cost, and the cap on it."""

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.errors import BudgetReached
from pipeline.models.answer import Answer


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens; `request`: US dollars per call besides.

    Of an answer's prompt, the part that came from the provider's cache pays `cached_input`, and the part that went into it
    `cache_write` (None: as `input`). tiers: (tokens, price) in rising order, the price of calls with longer prompts.
    """

    input: float
    cached_input: float
    output: float
    cache_write: float | None = None
    request: float = 0.0
    tiers: tuple[tuple[int, "Price"], ...] = ()
    origin: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for dollars in (self.input, self.cached_input, self.output, self.written, self.request):
            if isinstance(dollars, bool) or not 0 <= dollars < math.inf:
                raise ValueError(f"a price is a number of dollars from 0, got {dollars!r}")

    @property
    def written(self) -> float:
        return self.input if self.cache_write is None else self.cache_write

    @property
    def each(self) -> list["Price"]:
        """This price and those of its tiers."""
        return [self, *(price for _, price in self.tiers)]

    def of(self, answer: Answer) -> float:
        price = self
        for tokens, other in self.tiers:
            if answer.prompt_tokens > tokens:
                price = other
        fresh = answer.prompt_tokens - answer.cached_tokens - answer.cache_write_tokens
        cached = answer.cached_tokens * price.cached_input + answer.cache_write_tokens * price.written
        return (fresh * price.input + cached + answer.completion_tokens * price.output) / 1e6 + price.request

    def most(self, prompt_tokens: int, max_tokens: int) -> float:
        """The most that a call of this size can cost, tiers at their highest."""
        inputs = max(usd for one in self.each for usd in (one.input, one.cached_input, one.written))
        output = max(one.output for one in self.each)
        return (prompt_tokens * inputs + max_tokens * output) / 1e6 + max(one.request for one in self.each)


def in_dollars(budget: float) -> str:
    """With two decimals, or as many as the number has."""
    return f"${budget:.2f}" if round(budget, 2) == budget else f"${budget:.10g}"


class Budget:
    """A cap in US dollars that is never passed: the worst case of a call is reserved before it is sent.

    held: US dollars set aside for requests in batches that are not yet paid, by custom id; a call for one of them takes over
    what it holds.
    """

    def __init__(self, limit: float | None, spent: float, held: Mapping[str, float] | None = None) -> None:
        self.limit = limit
        self.spent = spent
        self._reserved = 0.0
        self._reservations = 0
        self._holds = dict(held or {})
        self._held = math.fsum(self._holds.values())
        self._closed = False
        self._lock = threading.Lock()

    def close(self) -> None:
        """Refuse every further reservation: the run ends, and would only cut off a smaller call that starts now."""
        with self._lock:
            self._closed = True

    def hold(self, name: str, usd: float) -> None:
        """Set aside `usd` for the request of that name, in place of what it held."""
        with self._lock:
            self._held += usd - self._holds.pop(name, 0.0)
            if usd:
                self._holds[name] = usd
            elif not self._holds:
                self._held = 0.0

    def expect(self, batches: int) -> None:
        """So many more (or fewer) batches are followed whose holds may come back: `in_flight` until there is none."""
        with self._lock:
            self._reservations += batches

    def reserve(self, most: float, name: str | None = None) -> float:
        """Set aside `most` for a call, or what `name` holds; returns the sum. Raises BudgetReached."""
        with self._lock:
            committed = self.spent + self._reserved + self._held
            held = self._holds.pop(name, 0.0) if name else 0.0
            if held:
                self._held = self._held - held if self._holds else 0.0
                most = held
            elif self.limit is not None and most and (self._closed or committed + most > self.limit):
                out = f", ${self._held:.4f} set aside for batches that are still out" if self._holds else ""
                raise BudgetReached(
                    f"budget of {in_dollars(self.limit)} reached: ${self.spent:.4f} spent{out}, the next call could cost "
                    f"${most:.4f}. Finished work is kept; run the same command with a higher --budget to go on"
                )
            self._reserved += most
            self._reservations += most > 0
            return most

    @property
    def in_flight(self) -> bool:
        """Whether money is reserved, part of which may come back."""
        with self._lock:
            return self._reservations > 0

    def settle(self, reserved: float, paid: float) -> None:
        with self._lock:
            self._reservations -= reserved > 0
            # Not what rounding leaves, or the last cent would never be free again.
            self._reserved = self._reserved - reserved if self._reservations else 0.0
            self.spent += paid
