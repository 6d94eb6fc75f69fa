"""Secrets in settings: queries of addresses, and parameters named like a key. Used, and never stored or shown.

A setting holds a mark in their place: `https://host/path?…1a2b3c4d`, `{"user_token": "…1a2b3c4d"}`. What it stands for is in
the environment of this process and of those that it starts, where keys live. A parameter's mark is a hash of its value. An
address's depends on the address and on the query's parameters, but for those named like a secret: the same data or server has
the same mark when its signature is renewed.
"""

import hashlib
import json
import os
import re
from typing import Any
from urllib.parse import parse_qsl

from pipeline.errors import ConfigError

_VARIABLE = "FIGA_ADDRESSES"
_MARK = re.compile(r"…[0-9a-f]{8}")
_SECRET = re.compile(
    r"key|token|sig|secret|pass|pwd|auth|credential|expire|date|code|x-amz|x-goog|^s[eptvr]$", re.IGNORECASE
)
_SECRET_PARAMETER = re.compile(r"key|token|secret|auth|passw|pwd|credential|cookie|signature|bearer", re.IGNORECASE)


def conceal(address: str) -> str:
    """The address with a mark in place of its query."""
    base, question, query = address.partition("?")
    if not question or not base.lower().startswith(("http://", "https://")) or query.startswith("…"):
        return address
    plain = sorted(pair for pair in parse_qsl(query, keep_blank_values=True) if not _SECRET.search(pair[0]))
    return f"{base}?{_keep(query, [base, plain])}"


def conceal_parameters(values: Any, *, secret: bool = False) -> Any:
    """Request parameters with a mark in place of each text under a name like key, token or password, however deep.

    >>> conceal_parameters({"top_k": 5, "headers": {"Authorization": "Bearer abc"}})
    {'top_k': 5, 'headers': {'Authorization': '…1013a86a'}}
    """
    if isinstance(values, dict):
        named = ((name, secret or bool(_SECRET_PARAMETER.search(str(name)))) for name in values)
        return {name: conceal_parameters(values[name], secret=hide) for name, hide in named}
    if isinstance(values, list):
        return [conceal_parameters(value, secret=secret) for value in values]
    # What begins with $ is filled in for each row.
    plain = not isinstance(values, str) or not values or values.startswith("$") or _MARK.fullmatch(values)
    return values if plain or not secret else _keep(values, values)


def reveal(value: Any) -> Any:
    """An address, or parameters, as they were set. Raises ConfigError for a mark that this process doesn't know."""
    if isinstance(value, dict):
        return {name: reveal(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [reveal(inner) for inner in value]
    mark = _MARK.search(value) if isinstance(value, str) else None
    if not mark or not (mark[0] == value or value[: mark.start()].endswith("?")):
        return value
    secret = _known().get(mark[0])
    if secret is None:
        what = "the value" if mark[0] == value else "its query"
        raise ConfigError(f"{value}: {what} is never stored; give the whole setting again")
    return value.replace(mark[0], secret, 1)


def secrets() -> list[str]:
    """The queries and parameters, and the values of a query's parameters, that no message may repeat."""
    hidden = _known().values()
    values = [value for query in hidden for name, value in parse_qsl(query) if _SECRET.search(name)]
    return sorted({one for one in (*hidden, *values) if len(one) >= 6}, key=len, reverse=True)


def _keep(secret: str, identity: object) -> str:
    """Remember a secret; returns its mark."""
    mark = "…" + hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]
    os.environ[_VARIABLE] = json.dumps(_known() | {mark: secret})
    return mark


def _known() -> dict[str, str]:
    try:
        known = json.loads(os.environ.get(_VARIABLE) or "{}")
    except ValueError:
        known = {}
    return known if isinstance(known, dict) else {}
