"""What calls cost, and the hard cap on it."""

import math
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from pipeline import resources
from pipeline.config.model_names import ANTHROPIC_URL, OPENAI_URL, ModelSpec, base_url
from pipeline.errors import BudgetReached, ConfigError
from pipeline.models.answer import Answer
from pipeline.text import one_line

# Of the live price, where a table doesn't say.
_BATCH_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens.

    Of an answer's prompt, the part that came from the provider's cache pays `cached_input`, and the part that went into it
    `cache_write` (None: as `input`).
    """

    input: float
    cached_input: float
    output: float
    cache_write: float | None = None

    def __post_init__(self) -> None:
        for dollars in (self.input, self.cached_input, self.output, self.written):
            if not 0 <= dollars < math.inf:
                raise ValueError(f"a price is a number of dollars from 0, got {dollars!r}")

    @property
    def written(self) -> float:
        return self.input if self.cache_write is None else self.cache_write

    def of(self, answer: Answer) -> float:
        fresh = answer.prompt_tokens - answer.cached_tokens - answer.cache_write_tokens
        prompt = (
            fresh * self.input + answer.cached_tokens * self.cached_input + answer.cache_write_tokens * self.written
        )
        return (prompt + answer.completion_tokens * self.output) / 1e6

    def most(self, prompt_tokens: int, max_tokens: int) -> float:
        """The most that a call of this size can cost."""
        return (prompt_tokens * max(self.input, self.cached_input, self.written) + max_tokens * self.output) / 1e6


@cache
def _table() -> tuple[dict[str, Price], str, dict[str, float]]:
    path = Path(os.environ.get("FIGA_PRICES") or resources.folder("data") / "prices.yaml")
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
        prices = {name: Price(**{"cached_input": price["input"], **price}) for name, price in content["models"].items()}
        shares = {provider: float(share) for provider, share in (content.get("batch") or {}).items()}
        if not all(0 <= share < math.inf for share in shares.values()):
            raise ValueError(f"batch: a share of the live price is a number from 0, got {shares}")
        return prices, str(content["as_of"]), shares
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = one_line(error, 1000)
        raise ConfigError(
            f"{path}: not a price table (as_of, models: name: input, cached_input, output, perhaps cache_write): {reason}"
        ) from None


def price_of(spec: ModelSpec, mode: str = "live") -> Price | None:
    """The price of a model, live or in batches; zero for models on this machine; None when it isn't known.

    A self-hosted server (an address behind @) has a price only when the table names the model with that address. An address
    in the environment is a way to the provider: the model costs what it costs there, unless the table says otherwise.
    """
    if spec.provider not in ("openai", "anthropic"):
        return Price(0, 0, 0)
    prices, _, shares = _table()
    url = (base_url(spec) or ANTHROPIC_URL).rstrip("/")
    price = prices.get(str(ModelSpec(spec.provider, spec.name, url)))
    if price is None and (spec.base_url is None or url in (OPENAI_URL, ANTHROPIC_URL)):
        price = prices.get(f"{spec.provider}/{spec.name}")
    if price is None or mode != "batch":
        return price
    share = shares.get(spec.provider, _BATCH_SHARE)
    # Providers differ on whether cached tokens stay cheaper in a batch: never counted as cheaper.
    return Price(price.input * share, price.input * share, price.output * share, price.written * share)


def in_dollars(budget: float) -> str:
    """With two decimals, or as many as the number has."""
    return f"${budget:.2f}" if round(budget, 2) == budget else f"${budget:.10g}"


def prices_as_of() -> str:
    return _table()[1]


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
