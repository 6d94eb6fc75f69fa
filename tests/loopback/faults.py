"""The faults by name, and the plans that say which call meets which.

What each does on the wire is in `misbehave.py`. The names are constants here and strings everywhere, so that a plan can
be written down, and a ledger read, without importing anything. The refusals of `refusals.py` are faults too.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from tests.loopback.chat import ChatRequest
from tests.loopback.refusals import REFUSALS

# Refusals with a status. Each 429 differs in how it says when to come back.
RATE_SECONDS = "429_seconds"
RATE_DATE = "429_date"
RATE_MS = "429_ms"
RATE_ABSURD = "429_absurd"
RATE_BARE = "429_bare"
QUOTA = "quota"
BAD_REQUEST = "400"
UNAUTHORISED = "401"
FORBIDDEN = "403"
NOT_FOUND = "404"
TIMEOUT_STATUS = "408"
CONFLICT = "409"
UNPROCESSABLE = "422"
SERVER_ERROR = "500"
BAD_GATEWAY = "502"
UNAVAILABLE = "503"
GATEWAY_TIMEOUT = "504"
OVERLOADED = "529"

# The connection fails.
RESET_BEFORE_HEADERS = "reset_before_headers"
RESET_AFTER_HEADERS = "reset_after_headers"
CLOSE_BEFORE_HEADERS = "close_before_headers"
HALF_BODY = "half_body"
HANG = "hang"
TRICKLE = "trickle"

# A 200 that is no answer.
HTML = "html_200"
MALFORMED_JSON = "malformed_json_200"
EMPTY_BODY = "empty_body_200"
ERROR_BODY = "error_body_200"
WRONG_CONTENT_TYPE = "wrong_content_type"

# A well-formed answer that is of no use.
EMPTY_CHOICES = "empty_choices"
NULL_CONTENT = "null_content"
EMPTY_TEXT = "empty_text"
WHITESPACE = "whitespace"
REFUSED = "refusal"
FILTERED = "content_filter"
CUT = "length"

RATE_FAULTS = (RATE_SECONDS, RATE_DATE, RATE_MS, RATE_ABSURD, RATE_BARE)
RETRYABLE_STATUSES = (
    TIMEOUT_STATUS,
    CONFLICT,
    SERVER_ERROR,
    BAD_GATEWAY,
    UNAVAILABLE,
    GATEWAY_TIMEOUT,
    OVERLOADED,
)
FATAL_STATUSES = (BAD_REQUEST, UNAUTHORISED, FORBIDDEN, NOT_FOUND, UNPROCESSABLE, QUOTA)
SOCKET_FAULTS = (RESET_BEFORE_HEADERS, RESET_AFTER_HEADERS, CLOSE_BEFORE_HEADERS, HALF_BODY, HANG, TRICKLE)
BODY_FAULTS = (HTML, MALFORMED_JSON, EMPTY_BODY, ERROR_BODY, WRONG_CONTENT_TYPE)
ANSWER_FAULTS = (EMPTY_CHOICES, NULL_CONTENT, EMPTY_TEXT, WHITESPACE, REFUSED, FILTERED, CUT)
ALL_FAULTS = (*RATE_FAULTS, *RETRYABLE_STATUSES, *FATAL_STATUSES, *SOCKET_FAULTS, *BODY_FAULTS, *ANSWER_FAULTS)
# What a long run may meet without being stopped by it: the default of a random plan. An absurd Retry-After is left out
# because a client that caps it still waits for its cap.
PASSING_FAULTS = (
    *(fault for fault in RATE_FAULTS if fault != RATE_ABSURD),
    *RETRYABLE_STATUSES,
    *SOCKET_FAULTS,
    *BODY_FAULTS,
)

Draw = Callable[[int, ChatRequest, int], str | None]


@dataclass(frozen=True)
class FaultPlan:
    """Which call meets which fault. `draw(number, request, attempt)` gives a fault's name or `None`.

    `number` counts arrivals from 1, `attempt` the calls with the same body, from 1. The other fields set how long the
    faults last; `retry_after` is in seconds, and for 429_date at least the next whole second.
    """

    draw: Draw
    retry_after: float = 1.0
    hang_seconds: float = 30.0
    trickle_interval: float = 0.05
    # Whether the call meets faults by which a run finds out what a server takes.
    hits_probes: bool = False

    @classmethod
    def none(cls) -> Self:
        return cls(lambda number, request, attempt: None)

    @classmethod
    def always(cls, fault: str, **settings: float) -> Self:
        _check([fault])
        return cls(lambda number, request, attempt: fault, **settings)

    @classmethod
    def listed(cls, faults: Sequence[str | None], **settings: float) -> Self:
        """The first call to arrive meets the first of the list, and so on; past its end there are none."""
        _check(fault for fault in faults if fault is not None)
        return cls(lambda number, request, attempt: faults[number - 1] if number <= len(faults) else None, **settings)

    @classmethod
    def by_attempt(cls, faults: Sequence[str | None], **settings: float) -> Self:
        """As `listed`, but for each request body anew: its first attempt meets the first of the list."""
        _check(fault for fault in faults if fault is not None)
        return cls(lambda number, request, attempt: faults[attempt - 1] if attempt <= len(faults) else None, **settings)

    @classmethod
    def random(
        cls,
        rate: float,
        *,
        seed: int = 0,
        faults: Iterable[str] | Mapping[str, float] = PASSING_FAULTS,
        keyed_by: str = "arrival",
        **settings: float,
    ) -> Self:
        """A share `rate` of the calls meets a fault, weighted if `faults` is a mapping.

        Drawn from (seed, arrival number); or, with `keyed_by="content"`, from (seed, body, attempt), which gives each
        request the same fate in every run however the calls interleave.
        """
        if keyed_by not in ("arrival", "content"):
            raise ValueError(f'keyed_by must be "arrival" or "content", got {keyed_by!r}')
        names = list(faults)
        weights = list(faults.values()) if isinstance(faults, Mapping) else None
        _check(names)

        def draw(number: int, request: ChatRequest, attempt: int) -> str | None:
            key = f"{seed}:{number}" if keyed_by == "arrival" else f"{seed}:{request.key}:{attempt}"
            generator = random.Random(key)
            return generator.choices(names, weights)[0] if generator.random() < rate else None

        return cls(draw, **settings)


def _check(names: Iterable[str]) -> None:
    unknown = sorted(set(names) - set(ALL_FAULTS) - REFUSALS.keys())
    if unknown:
        raise ValueError(f"unknown fault(s) {', '.join(unknown)}; known are: {', '.join(ALL_FAULTS)}")
