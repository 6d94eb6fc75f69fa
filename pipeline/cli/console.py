"""rich's console as it is used here: texts are data, not markup, and a reader that leaves is no failure."""

from __future__ import annotations

import rich.console

from pipeline.cli.streams import drop


class Console(rich.console.Console):
    """Prints texts as they are. goes_on: a reader that left ends only the printing; else BrokenPipeError is raised."""

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = False, goes_on: bool = False) -> None:
        super().__init__(stderr=stderr, soft_wrap=soft_wrap, highlight=False, markup=False)
        self._goes_on = goes_on

    def on_broken_pipe(self) -> None:
        if not self._goes_on:
            raise  # noqa: PLE0704  called where it is handled
        self.quiet = True
        drop(self.file)
