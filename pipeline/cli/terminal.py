"""What the person at the terminal sees while a run works, and at its end.

On a terminal: one live display with a line a stage. In a log: a plain line whenever something moved, a few a minute.
Text of rows reaches the terminal only through `diffs`, where control characters are made visible.
"""

from __future__ import annotations

import json
import shlex
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline import schema
from pipeline.cli.console import Console
from pipeline.dataset import facts
from pipeline.models.batch import ledger
from pipeline.report.diffs import sample_diffs
from pipeline.run import progress
from pipeline.run.status import folder_state

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.curate import Outcome
    from pipeline.run.context import Context
    from pipeline.run.estimate import Estimate

_LOG_EVERY_S = 10.0
# Calls are journalled under their own names; this is where the display counts their money.
_CALLS_OF = {"sample": ("sample",), "score": ("judge",), "revise": ("diagnose", "revise")}


class Terminal:
    """The display of one run. With `to_stderr`, standard output stays free for JSON."""

    def __init__(self, *, to_stderr: bool = False) -> None:
        self.console = Console(stderr=to_stderr, goes_on=True)
        self._live: Live | None = None
        self._downloads: dict[str, tuple[int, int]] = {}
        self._said = 0.0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def warn(self, message: str) -> None:
        self.console.print(Text("note: ", "yellow") + Text(message), soft_wrap=True)

    def download(self, what: str, done: int, total: int) -> None:
        """Progress of a model's download, in bytes. A bar on a terminal, a line now and then in a log."""
        self._downloads = {what: (done, total)}
        if self.console.is_terminal:
            if self._live is None:
                self._live = Live(
                    get_renderable=self._download_bar, console=self.console, refresh_per_second=4, transient=True
                )
                self._live.start()
        elif done >= total or time.monotonic() - self._said > _LOG_EVERY_S:
            self._said = time.monotonic()
            self.console.print(f"{what}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    def _download_bar(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for what, (done, total) in self._downloads.items():
            bar = ProgressBar(total=max(total, 1), completed=done, width=40)
            table.add_row(what, bar, f"{done / 1e6:.0f} / {total / 1e6:.0f} MB")
        return table

    def _stop(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    @contextmanager
    def watching(self, context: Context) -> Iterator[None]:
        """Show the stages of a run until the block ends."""
        self._stop()
        board = _Board(context)
        if self.console.is_terminal:
            with Live(get_renderable=board.table, console=self.console, refresh_per_second=4):
                yield
            return
        ended = threading.Event()

        def log() -> None:
            last = ""
            while not ended.wait(_LOG_EVERY_S):
                line = board.line()
                if line and line != last:
                    self.console.print(line, soft_wrap=True)
                last = line

        thread = threading.Thread(target=log, name="progress-log", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.console.print(board.line(), soft_wrap=True)

    def estimate(self, estimate: Estimate, *, as_json: bool) -> None:
        """The plan of a dry run."""
        if as_json:
            print(json.dumps(estimate.as_dict(), ensure_ascii=False))
            return
        for name, value in estimate.facts.items():
            self.console.print(Text(f"{name:>12}  ", "bold") + Text(value))
        table = Table(title="estimated calls", title_justify="left")
        for column in ("stage", "calls", "prompt tokens", "answer tokens", "cost"):
            table.add_column(column, justify="left" if column == "stage" else "right")
        for row in estimate.calls:
            numbers = (f"{n:,}" for n in (row.calls, row.prompt_tokens, row.completion_tokens))
            table.add_row(row.stage, *numbers, _dollars(row.cost_usd))
        table.add_section()
        known = sum(row.cost_usd or 0.0 for row in estimate.calls)
        table.add_row("total", "", "", "", _dollars(known) + (" + unknown" if estimate.cost_usd is None else ""))
        self.console.print(table)
        if estimate.cost_usd is None:
            self.warn("a model has no known price: add it to a price table and name that in FIGA_PRICES")
        self.console.print(
            "Nothing was called and nothing was spent. Estimated for the whole run from the source's rows, taking the policy's "
            "answers to be as long as the references; retries are not counted, answers already paid are not taken off."
        )

    def summary(self, outcome: Outcome, *, as_json: bool) -> None:
        """Funnel, three diffs, paths and the next command."""
        self._stop()
        manifest = outcome.manifest
        if outcome.already_done:
            self.warn(
                "nothing to do: this data set is published already, by the same settings and source; 0 model calls"
            )
        self.console.print(_funnel(manifest))
        self.console.print(facts.headline(manifest))
        for warning in facts.warnings(manifest):
            self.warn(warning)
        if outcome.context:
            for diff in sample_diffs(outcome.out, manifest, outcome.context.tokenizer, 3):
                self.console.print(diff)
        self.console.print("\n" + ", ".join([f"{outcome.calls} model calls", *facts.spent(manifest)]), soft_wrap=True)
        paths = {"report": "report.html", "data": "data", "rejects": "rejected", "manifest": "manifest.json"}
        for what, name in paths.items():
            self.console.print(f"{what:<10}{outcome.out / name}", soft_wrap=True)
        self.console.print(f"next      figa show {shlex.quote(str(outcome.out))}", soft_wrap=True)
        if as_json:
            print(json.dumps(as_json_object(outcome), ensure_ascii=False))

    def stopped(self, out: Path, error: BaseException) -> None:
        """The object of --json for a run that ended early: why, and what is there."""
        self._stop()
        found = folder_state(out)
        told = {
            "out": str(out),
            "error": str(error) or "interrupted",
            "exit_code": getattr(error, "exit_code", 130),
            "calls": sum(found.calls.values()),
            "cost_usd": found.cost_usd,
            "stages": [{"stage": step.stage, "out": step.rows, "rejected": step.rejected} for step in found.stages],
        }
        print(json.dumps(told, ensure_ascii=False))


def _dollars(dollars: float | None) -> str:
    return "unknown price" if dollars is None else f"${dollars:.4f}"


def as_json_object(outcome: Outcome) -> dict[str, Any]:
    """The final object of --json: counts a stage and the paths."""
    manifest = outcome.manifest
    return {
        "out": str(outcome.out),
        "manifest": str(outcome.out / "manifest.json"),
        "report": str(outcome.out / "report.html"),
        "already_done": outcome.already_done,
        "calls": outcome.calls,
        "cost_usd": manifest["cost_usd"],
        "unpriced": manifest.get("unpriced", []),
        "unanswered": manifest.get("unanswered", 0),
        "rows": manifest["rows"],
        "stages": manifest["funnel"],
        "source": manifest["source"],
        "reward_check": manifest.get("reward_check"),
        "files": [str(outcome.out / entry["path"]) for entry in manifest["files"]],
        "rejected_files": [str(outcome.out / entry["path"]) for entry in manifest["rejected_files"]],
    }


def _funnel(manifest: dict[str, Any]) -> Table:
    table = Table(title="where the rows went", title_justify="left")
    for column in ("stage", "in", "out", "rejected"):
        table.add_column(column, justify="right" if column in ("in", "out") else "left")
    for step in facts.funnel(manifest):
        table.add_row(step.stage, str(step.rows_in), str(step.rows_out), step.rejected)
        if step.notes:
            table.add_row("", "", "", step.notes, style="dim")
    return table


class _Board:
    """Progress as read from disk, with rates since each stage was first seen at work."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._started: dict[str, tuple[float, int]] = {}
        self._money: tuple[float, dict[str, tuple[int, float]]] = (0.0, {})

    def table(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        counts = progress.read(self._context.work)
        for stage in self._context.config.stages:
            if stage not in counts:
                table.add_row(stage, "", "", "", "", "", style="dim")
                continue
            c = counts[stage]
            rate, eta = self._rate(stage, c)
            rejected = f"{c.rejected} rejected" if c.rejected else ""
            bar = ProgressBar(total=max(c.total, 1), completed=c.done if c.total else 1, width=24)
            table.add_row(stage, bar, f"{c.done}/{c.total}", rejected, self._paid(stage), f"{rate}  {eta}".strip())
        for batch in ledger.unfinished(self._context.work):
            bar = ProgressBar(total=batch.size, completed=batch.done, width=24)
            table.add_row("batch", bar, f"{batch.done}/{batch.size}", "", batch.state, "")
        return Group(table)

    def line(self) -> str:
        """The stages at work, in one line; at the end, all of them."""
        counts = sorted(progress.read(self._context.work).items(), key=lambda item: schema.STAGES.index(item[0]))
        working = [(stage, c) for stage, c in counts if c.done < c.total]
        parts = []
        for stage, c in working or counts:
            rate, eta = self._rate(stage, c)
            extra = ", ".join(part for part in (rate, self._paid(stage), eta) if part)
            rejected = f" ({c.rejected} rejected)" if c.rejected else ""
            parts.append(f"{stage} {c.done}/{c.total}{rejected}" + (f" [{extra}]" if extra else ""))
        batches = ledger.unfinished(self._context.work)
        parts += [f"batch {batch.done}/{batch.size} ({batch.state})" for batch in batches]
        return " · ".join(parts)

    def _rate(self, stage: str, c: progress.Counts) -> tuple[str, str]:
        now = time.monotonic()
        since, already = self._started.setdefault(stage, (now, c.done))
        if c.done >= c.total or c.done <= already or now - since < 1:
            return "", ""
        rate = (c.done - already) / (now - since)
        left = round((c.total - c.done) / rate)
        shown = f"{rate:.1f} rows/s" if rate >= 0.5 else f"{1 / rate:.1f} s/row"
        return shown, f"{left // 60}:{left % 60:02d} left"

    def _paid(self, stage: str) -> str:
        if stage not in _CALLS_OF:
            return ""
        due, by_call = self._money
        if (start := time.monotonic()) > due:
            by_call = self._context.journal.money()
            # Sums take longer with every answer: a twentieth of the time at most.
            self._money = (start + max(1, 20 * (time.monotonic() - start)), by_call)
        mine = [by_call[name] for name in _CALLS_OF[stage] if name in by_call]
        if not mine:
            return ""
        calls, cost = sum(m[0] for m in mine), sum(m[1] for m in mine)
        return f"{calls} calls" + (f", ${cost:.4f}" if cost else "")
