"""Whether a Prefect server answers; needs no Prefect."""

import urllib.request
from http.client import HTTPException


def prefect_problem(url: str) -> str | None:
    """Why no server answers here within three seconds (Prefect's own client takes a minute); None when one does."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=3) as response:  # noqa: S310 - the user's own address
            return None if response.status == 200 else f"status {response.status}"
    except (OSError, ValueError, HTTPException) as error:
        return str(error)
