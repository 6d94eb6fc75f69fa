"""Whether a Prefect server answers, asked without Prefect: its client would wait for a minute to find out."""

from __future__ import annotations


def trouble(url: str) -> str | None:
    """Why no server answers at this API address within three seconds; None when one does."""
    import urllib.request
    from http.client import HTTPException

    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=3) as answer:  # noqa: S310 - the user's own address
            return None if answer.status == 200 else f"status {answer.status}"
    except (OSError, ValueError, HTTPException) as error:
        return str(error)
