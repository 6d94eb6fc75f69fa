"""What commands print: results to standard output, notes and progress to standard error.

Texts are data, not rich's markup.
"""

import io
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import rich.console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from pipeline.storage import stopping

LOG_EVERY_S = 10.0


def accept_any_text() -> None:
    """Print a question mark for each character that the locale's encoding doesn't have, instead of raising."""
    # A process may be started without these streams.
    nowhere = Path(os.devnull)
    sys.stdout, sys.stderr = (stream or nowhere.open("w") for stream in (sys.stdout, sys.stderr))
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


class Console(rich.console.Console):
    """Prints texts as they are. goes_on: after a broken pipe the work goes on in silence; else BrokenPipeError is raised."""

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = False, goes_on: bool = False) -> None:
        super().__init__(stderr=stderr, soft_wrap=soft_wrap, highlight=False, markup=False, emoji=False)
        self._goes_on = goes_on

    def on_broken_pipe(self) -> None:
        if not self._goes_on:
            raise  # noqa: PLE0704  called where it is handled
        self.quiet = True
        discard(self.file)


def table(title: str, columns: Sequence[str], right: Collection[str] = ()) -> Table:
    """An empty table. right: the columns to align right."""
    result = Table(title=title, title_justify="left")
    for name in columns:
        result.add_column(Text(name), justify="right" if name in right else "left")
    return result


@contextmanager
def progress_bar(what: str, total: float, unit: str = "rows") -> Iterator[Callable[[float], None]]:
    """Yields a function that adds to what is done: a bar on a terminal, a line every ten seconds in a log."""
    done, last = 0.0, time.monotonic()
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(escape(what), total=total)

        def advance(count: float) -> None:
            nonlocal done, last
            stopping.check()
            done += count
            bar.update(task, completed=done)
            if not console.is_terminal and time.monotonic() - last > LOG_EVERY_S:
                last = time.monotonic()
                print(f"{what}: {done:.0f} of {total:.0f} {unit}", file=sys.stderr, flush=True)

        yield advance
