"""Whether the Prefect server still answers. Its client would wait for a minute at each of its calls to find out."""

from __future__ import annotations

import urllib.request
from http.client import HTTPException

from prefect.settings import PREFECT_API_URL


def server_answers() -> bool:
    """True as well without an address: then the server is this process's own."""
    url = PREFECT_API_URL.value()
    if not url:
        return True
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=3) as answer:  # noqa: S310 - the user's own address
            return bool(answer.status == 200)
    except (OSError, ValueError, HTTPException):
        return False
