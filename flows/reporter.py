"""What a flow run shows while it works: log lines with counts, one progress artifact. Never row text, never keys."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL

from pipeline import schema
from pipeline.cli.prefect_server import prefect_problem
from pipeline.curate import Outcome, Reporter
from pipeline.errors import CurationError
from pipeline.run import progress
from pipeline.run.context import Context

_ARTIFACTS_EVERY_S = 5.0
_DOWNLOAD_EVERY_S = 10.0


@dataclass
class Caller:
    """The process that started the flow, when it is not a deployment: its display, and how the run ended, once it has."""

    display: Reporter
    endings: list[Outcome | CurationError] = field(default_factory=list)


# Flows and tasks must not name it: Dask and Ray pickle them by value with every variable that they name.
caller: ContextVar[Caller | None] = ContextVar("caller", default=None)


def keep(ending: Outcome | CurationError) -> None:
    """Hand over how the run ended, also when the server doesn't take it."""
    if current := caller.get():
        current.endings.append(ending)


def flow_reporter() -> Reporter:
    """The log and artifacts of the current flow run, and the caller's display where there is one."""
    current = caller.get()
    if current and (url := flow_run.ui_url):
        current.display.warn(f"this run at Prefect: {url}")
    return FlowReporter(get_run_logger(), current.display if current else None)


def server_answers() -> bool:
    """Whether the Prefect server answers; True as well without an address: then the server is this process's own."""
    url = PREFECT_API_URL.value()
    return not url or prefect_problem(url) is None


class FlowReporter:
    """Writes to the flow run's log what `display`, if any, shows, and keeps the flow run's progress artifact."""

    def __init__(self, logger: Any, display: Reporter | None = None) -> None:
        self._logger = logger
        self._display = display
        self._logged = 0.0
        self._artifact: UUID | None = None
        self._shown = ""

    def warn(self, message: str) -> None:
        self._logger.warning(message)
        if self._display:
            self._display.warn(message)

    def download(self, what: str, done: int, total: int) -> None:
        if self._display:
            self._display.download(what, done, total)
        if done >= total or time.monotonic() - self._logged > _DOWNLOAD_EVERY_S:
            self._logged = time.monotonic()
            self._logger.info("%s: %d of %d MB", what, done // 1_000_000, total // 1_000_000)

    @contextmanager
    def watching(self, context: Context) -> Iterator[None]:
        """Show the stages of a run until the block ends."""
        display = self._display.watching(context) if self._display else nullcontext()
        try:
            with progress.repeating(lambda: self._show(context), _ARTIFACTS_EVERY_S), display:
                yield
        finally:
            self._show(context)
            counts = progress.read(context.work)
            for stage in (stage for stage in schema.STAGES if stage in counts):
                self._logger.info("%s: %d rows, %d rejected", stage, counts[stage].done, counts[stage].rejected)

    def _show(self, context: Context) -> None:
        """Create or update the progress artifact when any stage got on."""
        percent, text = overall(progress.read(context.work), context.config.stages)
        if text == self._shown or not server_answers():
            return
        try:
            if self._artifact:
                update_progress_artifact(self._artifact, progress=percent, description=text)
            else:
                made = create_progress_artifact(percent, key="figa-progress", description=text)
                self._artifact = cast("UUID", made)
        except Exception as error:
            # Whatever a server that just went away raises: a display must not stop the run that it shows.
            self._logger.debug("the progress artifact: %s", error)
            return
        self._shown = text


def overall(counts: Mapping[str, progress.Counts], stages: Sequence[str]) -> tuple[float, str]:
    """The share of all stages' rows that is done, in percent, and the counts in a line.

    A stage expects the rows that those before it have not rejected, so it never gets more than is counted here.
    """
    expected, shares, lines = counts.get("source", progress.Counts()).total, [], []
    for stage in stages:
        c = counts.get(stage, progress.Counts())
        shares.append(min(1.0, c.done / expected) if expected else 1.0)
        expected -= c.rejected
        if stage in counts:
            lines.append(f"{stage} {c.done}/{c.total}" + (f" ({c.rejected} rejected)" if c.rejected else ""))
    return 100.0 * sum(shares) / len(shares), " · ".join(lines)
