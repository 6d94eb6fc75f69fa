"""The process that started the flow, when it is not a deployment: its display, and where it wants the outcome.

In a module of its own, as Dask and Ray pickle the flow by value with every variable that it names.
"""

from __future__ import annotations

from contextvars import ContextVar

from prefect import get_run_logger

from flows.reporter import FlowReporter
from pipeline.curate import Outcome, Reporter
from pipeline.errors import CurationError

display: ContextVar[Reporter | None] = ContextVar("display", default=None)
kept: ContextVar[list[Outcome | CurationError] | None] = ContextVar("kept", default=None)


def reporter() -> Reporter:
    """The flow run's log and artifacts, and the caller's display where there is one."""
    return FlowReporter(get_run_logger(), display.get())


def keep(ending: Outcome | CurationError) -> None:
    """Hand over how the run ended, whether or not the server can be told."""
    mine = kept.get()
    if mine is not None:
        mine.append(ending)
