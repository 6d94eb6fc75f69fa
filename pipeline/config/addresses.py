"""Addresses whose query may be a key or a signature: used, and never stored or shown.

A setting holds `https://host/path?…1a2b3c4d`. The query itself is in the environment of this process and of those that it
starts, where keys live. The mark depends on the address and on the query's parameters, but for those named like a secret: the
same data or server has the same mark when its signature is renewed.
"""

import hashlib
import json
import os
import re
from urllib.parse import parse_qsl

from pipeline.errors import ConfigError

_VARIABLE = "FIGA_ADDRESSES"
_MARK = re.compile(r"\?(…[0-9a-f]{8})")
_SECRET = re.compile(
    r"key|token|sig|secret|pass|pwd|auth|credential|expire|date|code|x-amz|x-goog|^s[eptvr]$", re.IGNORECASE
)


def conceal(address: str) -> str:
    """The address with a mark in place of its query."""
    base, question, query = address.partition("?")
    if not question or not base.lower().startswith(("http://", "https://")) or query.startswith("…"):
        return address
    plain = sorted(pair for pair in parse_qsl(query, keep_blank_values=True) if not _SECRET.search(pair[0]))
    mark = "…" + hashlib.sha256(json.dumps([base, plain]).encode()).hexdigest()[:8]
    os.environ[_VARIABLE] = json.dumps(_known() | {mark: query})
    return f"{base}?{mark}"


def reveal(address: str) -> str:
    """The address as it was given. Raises ConfigError when this process doesn't know its query."""
    marked = _MARK.search(address)
    if not marked:
        return address
    query = _known().get(marked[1])
    if query is None:
        raise ConfigError(f"{address}: its query is never stored; give the whole address again")
    return address.replace(marked[1], query, 1)


def secrets() -> list[str]:
    """The queries, and the values of their parameters, that no message may repeat."""
    queries = _known().values()
    values = [value for query in queries for name, value in parse_qsl(query) if _SECRET.search(name)]
    return sorted({one for one in (*queries, *values) if len(one) >= 6}, key=len, reverse=True)


def refuse_keys(name: str, values: dict[str, object]) -> None:
    """Raises ValueError for a parameter that is named like a key: settings are stored."""
    for key in values:
        if re.fullmatch(
            r"(?:x-)?(?:api[-_]?key|key|access[-_]?token|authorization|password|secret.*)", str(key), re.IGNORECASE
        ):
            raise ValueError(f"{name}.{key}: settings are stored, and keys live in the environment alone")


def _known() -> dict[str, str]:
    try:
        known = json.loads(os.environ.get(_VARIABLE) or "{}")
    except ValueError:
        known = {}
    return known if isinstance(known, dict) else {}
