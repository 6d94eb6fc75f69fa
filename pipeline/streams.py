"""The standard streams of a command line."""

from __future__ import annotations

import io
import sys


def take_any_text() -> None:
    """Print what the locale's encoding doesn't have as a question mark: it may decide how a run looks, not whether it works."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
