"""The standard streams of a command line."""

from __future__ import annotations

import io
import os
import sys
from typing import IO


def take_any_text() -> None:
    """Print what the locale's encoding doesn't have as a question mark: it may decide how a run looks, not whether it works."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def drop(stream: IO[str]) -> None:
    """Lose what is still written to a stream: its reader left, and the interpreter's last flush must not find out again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
