"""What a provider's rate-limit headers say: `x-ratelimit-*` (OpenAI and most that speak its API), `anthropic-ratelimit-*`."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

KINDS = ("requests", "tokens")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# Longer than a month is no limit of a provider's, and would stop a run for ever.
_LONGEST_S = 32 * 86_400.0
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


@dataclass(frozen=True, slots=True)
class Quota:
    """One limit as it was when a call was let in: `rate` a second, `remaining` now, `capacity` when all is given back."""

    rate: float
    remaining: float
    capacity: float


def read(headers: Mapping[str, str]) -> dict[str, Quota]:
    """The limits that a response tells, by kind: `requests`, `tokens`. What is missing or unreadable is left out."""
    found = {}
    for kind in KINDS:
        if f"x-ratelimit-limit-{kind}" in headers:
            values = (headers.get(f"x-ratelimit-{part}-{kind}") for part in ("limit", "remaining", "reset"))
        elif f"anthropic-ratelimit-{kind}-limit" in headers:
            values = (headers.get(f"anthropic-ratelimit-{kind}-{part}") for part in ("limit", "remaining", "reset"))
        else:
            continue
        quota = _quota(*values)
        if quota:
            found[kind] = quota
    return found


def _quota(limit: str | None, remaining: str | None, reset: str | None) -> Quota | None:
    try:
        most, left = float(limit or ""), max(0.0, float(remaining or ""))
    except ValueError:
        return None
    if not 0 < most < float("inf") or not left < float("inf"):
        return None
    rate = most / 60
    seconds = _seconds(reset)
    if seconds and seconds < _LONGEST_S:
        # Some limits that look like a minute's are a day's: the time until they are whole again tells. A bucket that holds
        # less than a minute's worth looks faster than it is, so the slower of the two counts.
        rate = min(rate, max(most - left, 1.0) / seconds)
        return Quota(rate, left, min(most, left + rate * seconds))
    return Quota(rate, left, max(left, 1.0))


def _seconds(reset: str | None) -> float | None:
    """Seconds until a limit is whole again: `6m0s`, `12ms`, `1.5`, or a time in RFC 3339."""
    if not reset:
        return None
    parts = _DURATION.findall(reset)
    if parts and "".join(number + unit for number, unit in parts) == reset.strip():
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    try:
        return max(0.0, float(reset))
    except ValueError:
        pass
    try:
        return max(0.0, datetime.fromisoformat(reset).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
