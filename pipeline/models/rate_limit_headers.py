"""What a provider's rate-limit headers say: `x-ratelimit-*` (OpenAI and most that speak its API), `anthropic-ratelimit-*`."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

KINDS = ("requests", "tokens")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# No provider's limit is longer than a month; waiting for one would stop a run for ever.
_LONGEST_S = 32 * 86_400.0
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


@dataclass(frozen=True, slots=True)
class Quota:
    """One limit as it was when a call was admitted: `rate` a second, `remaining` now, `capacity` when full."""

    rate: float
    remaining: float
    capacity: float


def read(headers: Mapping[str, str]) -> dict[str, Quota]:
    """The limits in a response's headers, by kind: `requests`, `tokens`. What is missing or unreadable is left out."""
    quotas = {}
    for kind in KINDS:
        for pattern in ("x-ratelimit-{part}-{kind}", "anthropic-ratelimit-{kind}-{part}"):
            values = [headers.get(pattern.format(part=part, kind=kind)) for part in ("limit", "remaining", "reset")]
            if quota := _quota(*values):
                quotas[kind] = quota
                break
    return quotas


def _quota(limit: str | None, remaining: str | None, reset: str | None) -> Quota | None:
    try:
        most, left = float(limit or ""), max(0.0, float(remaining or ""))
    except ValueError:
        return None
    if not 0 < most < math.inf or not left < math.inf:
        return None
    rate = most / 60
    seconds = _seconds(reset)
    if seconds and seconds < _LONGEST_S:
        # A limit that looks like a minute's may be a day's: the time until it is full again says so. A bucket that holds
        # less than a minute's worth looks faster than it is, so the slower of the two rates counts.
        rate = min(rate, max(most - left, 1.0) / seconds)
        return Quota(rate, left, min(most, left + rate * seconds))
    return Quota(rate, left, max(left, 1.0))


def _seconds(reset: str | None) -> float | None:
    """Seconds until a limit is full again: `6m0s`, `12ms`, `1.5`, or a time in RFC 3339."""
    if not reset:
        return None
    parts = _DURATION.findall(reset)
    if parts and "".join(number + unit for number, unit in parts) == reset.strip():
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    with suppress(ValueError):
        return max(0.0, float(reset))
    with suppress(ValueError, OverflowError):
        return max(0.0, datetime.fromisoformat(reset).timestamp() - time.time())
    return None
