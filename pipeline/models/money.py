"""What calls cost, and the hard cap on it."""

from __future__ import annotations

import math
import os
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from pipeline import resources
from pipeline.errors import BudgetReached, ConfigError
from pipeline.models.journal import Answer
from pipeline.models.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars a million tokens. An answer whose prompt was partly cached pays `cached_input` for that part."""

    input: float
    cached_input: float
    output: float

    def __post_init__(self) -> None:
        for dollars in (self.input, self.cached_input, self.output):
            if not 0 <= dollars < math.inf:
                raise ValueError(f"a price is a number of dollars from 0, got {dollars!r}")

    def of(self, answer: Answer) -> float:
        fresh = answer.prompt_tokens - answer.cached_tokens
        paid = fresh * self.input + answer.cached_tokens * self.cached_input + answer.completion_tokens * self.output
        return paid / 1e6

    def most(self, prompt_tokens: int, max_tokens: int) -> float:
        """The most that a call of this size can cost."""
        return (prompt_tokens * self.input + max_tokens * self.output) / 1e6


@cache
def _table() -> tuple[dict[str, Price], str]:
    path = Path(os.environ.get("FIGA_PRICES") or resources.folder("data") / "prices.yaml")
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
        return {name: Price(**price) for name, price in content["models"].items()}, str(content["as_of"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{path}: not a price table (as_of, models: name: input, cached_input, output): {reason}"
        ) from None


def price_of(spec: ModelSpec) -> Price | None:
    """The price of a model; zero for models on this machine; None when it isn't known.

    A self-hosted server (an address behind @) is only priced when the table names it with its address.
    """
    if spec.provider in ("local", "hf"):
        return Price(0, 0, 0)
    return _table()[0].get(str(spec))


def prices_as_of() -> str:
    return _table()[1]


class Budget:
    """A cap in US dollars that is never passed: the worst case of a call is reserved before it is made.

    Raises BudgetReached from `reserve` when the next call could pass the cap.
    """

    def __init__(self, limit: float | None, spent: float) -> None:
        self.limit = limit
        self.spent = spent
        self._reserved = 0.0
        self._reservations = 0
        self._lock = threading.Lock()

    def reserve(self, most: float) -> None:
        with self._lock:
            if self.limit is not None and most and self.spent + self._reserved + most > self.limit:
                raise BudgetReached(
                    f"budget of ${self.limit:.2f} reached: ${self.spent:.4f} spent, the next call could cost ${most:.4f}. "
                    "Finished work is kept; run the same command with a higher --budget to go on"
                )
            self._reserved += most
            self._reservations += most > 0

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
