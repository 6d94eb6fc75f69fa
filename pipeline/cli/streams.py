"""The standard streams of a command: results go to standard output, notes and errors to standard error."""

from __future__ import annotations

import io
import os
import sys
from typing import IO


def accept_any_text() -> None:
    """Print a question mark for each character that the locale's encoding doesn't have, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def discard(stream: IO[str]) -> None:
    """Redirect a stream to the null device after a broken pipe, so that the interpreter's last flush can't raise."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def note(message: str) -> None:
    print(f"note: {message}", file=sys.stderr)


def print_values(**values: object) -> None:
    """One line per value: its name and its text."""
    for name, value in values.items():
        print(f"{name:<10}{value}")
