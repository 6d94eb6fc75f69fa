"""Progress of a command that goes through rows: a bar on a terminal, a line every ten seconds in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOG_EVERY_S = 10.0


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function to be called with the number of rows that are done. Writes to standard error."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    done, told, live = 0, time.monotonic(), sys.stderr.isatty()
    with Progress(console=Console(stderr=True), transient=True, disable=not live) as bar:
        task = bar.add_task(escape(what), total=total)

        def advance(rows: int) -> None:
            nonlocal done, told
            done += rows
            bar.update(task, completed=done)
            if not live and time.monotonic() - told > _LOG_EVERY_S:
                told = time.monotonic()
                print(f"{what}: {done} of {total} rows", file=sys.stderr, flush=True)

        yield advance
