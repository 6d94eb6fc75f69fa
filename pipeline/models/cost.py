"""What calls cost, and the cap on it."""

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.errors import BudgetReached
from pipeline.models.request import Answer

_HOUR = 2.0


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
        """What an answer cost, which may be more by the server's own word."""
        price = self
        for tokens, other in self.tiers:
            if answer.prompt_tokens > tokens:
                price = other
        fresh = answer.prompt_tokens - answer.cached_tokens - answer.cache_write_tokens
        # Anthropic's: what stays in the cache for an hour costs twice what the prompt does.
        hour = answer.cache_hour_tokens * max(0.0, _HOUR * price.input - price.written)
        cached = answer.cached_tokens * price.cached_input + answer.cache_write_tokens * price.written + hour
        cost = (fresh * price.input + cached + answer.completion_tokens * price.output) / 1e6 + price.request
        return max(cost, answer.cost_usd)

    def most(self, prompt_tokens: int, max_tokens: int) -> float:
        """The most that a call of this size can cost, tiers at their highest."""
        inputs = max(usd for one in self.each for usd in (one.input, one.cached_input, one.written))
        output = max(one.output for one in self.each)
        return (prompt_tokens * inputs + max_tokens * output) / 1e6 + max(one.request for one in self.each)


def in_dollars(budget: float) -> str:
    """With two decimals, or as many as the number has."""
    return f"${budget:.2f}" if round(budget, 2) == budget else f"${budget:.10g}"


class Budget:
    """A cap in US dollars: the most that a call can cost is reserved before it is sent.

    A server may bill above the limits of a call. From then on the reservations of this model count as many times as much,
    those in flight included, and no call starts with which the cap could be passed: what is passed is by calls that were in
    flight together with the first one that was billed so.

    held: US dollars set aside for requests in batches that are not yet paid, by custom id; a call for one of them takes over
    what it holds.
    """

    def __init__(self, limit: float | None, spent: float, held: Mapping[str, float] | None = None) -> None:
        self.limit = limit
        self.spent = spent
        # By model: what is reserved, and how many times as much was billed at the worst.
        self._reserved: dict[str, float] = {}
        self._overruns: dict[str, float] = {}
        self._reservations = 0
        self._holds = dict(held or {})
        self._held = math.fsum(self._holds.values())
        self._closed = False
        self._lock = threading.Lock()

    def overrun(self, model: str) -> float:
        """How many times the most that a call was allowed this model's server has billed; 1.0 as long as it keeps to it."""
        return self._overruns.get(model, 1.0)

    def expect_more(self, model: str, overrun: float) -> None:
        """Count the model's reservations, also those in flight, so many times; a smaller number changes nothing."""
        if overrun > self.overrun(model):
            with self._lock:
                self._overruns[model] = max(overrun, self.overrun(model))

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

    def reserve(self, most: float, name: str | None = None, model: str = "") -> float:
        """Set aside `most` for a call of `model`, or what `name` holds; returns the sum. Raises BudgetReached."""
        with self._lock:
            committed = self._committed()
            held = self._holds.pop(name, 0.0) if name else 0.0
            counted = most * self.overrun(model)
            if held:
                self._held = self._held - held if self._holds else 0.0
                most = held
            elif self.limit is not None and most and (self._closed or committed + counted > self.limit):
                raise BudgetReached(self._reached(counted, model))
            self._reserved[model] = self._reserved.get(model, 0.0) + most
            self._reservations += most > 0
            return most

    def _committed(self) -> float:
        reserved = sum(usd * self.overrun(model) for model, usd in self._reserved.items())
        # Which model's they are isn't known.
        return self.spent + reserved + self._held * max(self._overruns.values(), default=1.0)

    def _reached(self, most: float, model: str) -> str:
        out = f", ${self._held:.4f} set aside for batches that are still out" if self._holds else ""
        times = f" ({model} has billed {self.overrun(model):.3g} times what a call allows)"
        return (
            f"budget of {in_dollars(self.limit or 0.0)} reached: ${self.spent:.4f} spent{out}, the next call could cost "
            f"${most:.4f}{times if self.overrun(model) > 1 else ''}. Finished work is kept; run the same command with a "
            "higher --budget to go on"
        )

    @property
    def in_flight(self) -> bool:
        """Whether money is reserved, part of which may come back."""
        with self._lock:
            return self._reservations > 0

    def settle(self, reserved: float, paid: float, model: str = "") -> None:
        with self._lock:
            self._reservations -= reserved > 0
            self._reserved[model] = self._reserved.get(model, 0.0) - reserved
            if not self._reservations:
                # Not what rounding leaves, or the last cent would never be free again.
                self._reserved.clear()
            self.spent += paid
