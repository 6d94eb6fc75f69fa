"""What a flow run tells while it works: log lines with counts, one progress artifact a stage. Never row text, never keys."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, cast

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from flows.health import server_answers
from pipeline import schema
from pipeline.run import progress

if TYPE_CHECKING:
    from uuid import UUID

    from pipeline.curate import Watcher
    from pipeline.run.context import Context

# Each artifact that is told costs as much as ten model calls: a long run is looked at less often.
_FIRST_S, _RARELY_S = 3.0, 15.0
_DOWNLOAD_EVERY_S = 10.0


class FlowWatcher:
    """Tells a Prefect run logger what a terminal would show, and keeps the progress artifacts of a flow run.

    display: the terminal of the process that started the flow, which is told the same.
    """

    def __init__(self, logger: Any, display: Watcher | None = None) -> None:
        self._logger = logger
        self._display = display
        self._said = 0.0
        self._artifacts: dict[str, UUID] = {}
        self._shown: dict[str, tuple[int, int]] = {}

    def warn(self, message: str) -> None:
        self._logger.warning(message)
        if self._display:
            self._display.warn(message)

    def download(self, what: str, done: int, total: int) -> None:
        if self._display:
            self._display.download(what, done, total)
        if done >= total or time.monotonic() - self._said > _DOWNLOAD_EVERY_S:
            self._said = time.monotonic()
            self._logger.info("%s: %d of %d MB", what, done // 1_000_000, total // 1_000_000)

    @contextmanager
    def watching(self, context: Context) -> Iterator[None]:
        """Progress is read from disk, so that shards at work on other machines count as well."""
        ended = threading.Event()

        def follow() -> None:
            pause = _FIRST_S
            while not ended.wait(pause):
                self._show(context)
                pause = min(1.5 * pause, _RARELY_S)

        # Artifacts belong to the flow run of the context that makes them.
        thread = threading.Thread(target=contextvars.copy_context().run, args=(follow,), name="artifacts", daemon=True)
        thread.start()
        try:
            with self._display.watching(context) if self._display else nullcontext():
                yield
        finally:
            ended.set()
            thread.join()
            self._show(context)
            counts = progress.read(context.work)
            for stage in (stage for stage in schema.STAGES if stage in counts):
                self._logger.info("%s: %d rows, %d rejected", stage, counts[stage].done, counts[stage].rejected)

    def _show(self, context: Context) -> None:
        counts = progress.read(context.work)
        news = {s: c for s, c in counts.items() if s in schema.STAGES[1:] and self._shown.get(s) != (c.done, c.total)}
        if not news or not server_answers():
            return
        for stage, c in news.items():
            percent = 100.0 * c.done / c.total if c.total else 100.0
            said = f"{stage}: {c.done} of {c.total} rows, {c.rejected} rejected"
            try:
                if stage in self._artifacts:
                    update_progress_artifact(self._artifacts[stage], progress=percent, description=said)
                else:
                    made = create_progress_artifact(percent, key=f"figa-{stage}", description=said)
                    self._artifacts[stage] = cast("UUID", made)
            except Exception as error:
                # Whatever a server that just went away raises: a display must not stop the run that it shows.
                self._logger.debug("the progress artifact of %s: %s", stage, error)
                return
            self._shown[stage] = c.done, c.total
