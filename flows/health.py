"""Whether the Prefect server still answers."""

from __future__ import annotations

from prefect.settings import PREFECT_API_URL

from pipeline.cli.prefect_server import trouble


def server_answers() -> bool:
    """True as well without an address: then the server is this process's own."""
    url = PREFECT_API_URL.value()
    return not url or trouble(url) is None
