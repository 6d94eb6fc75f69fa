"""What a flow run's log says: warnings and downloads, never row text, never keys."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipeline import progress

if TYPE_CHECKING:
    from pipeline.context import Context

_EVERY_S = 10.0


class LogWatcher:
    """Tells a Prefect run logger what a terminal would show."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._said = 0.0

    def warn(self, message: str) -> None:
        self._logger.warning(message)

    def download(self, what: str, done: int, total: int) -> None:
        if done >= total or time.monotonic() - self._said > _EVERY_S:
            self._said = time.monotonic()
            self._logger.info("%s: %d of %d MB", what, done // 1_000_000, total // 1_000_000)

    @contextmanager
    def watching(self, context: Context) -> Iterator[None]:
        yield
        for stage, counts in progress.read(context.work).items():
            self._logger.info("%s: %d rows, %d rejected", stage, counts.done, counts.rejected)
