"""The display of a run while it works, and its summary at the end.

On a terminal: one live table with a line per stage. In a log: a plain line every ten seconds when something changed.
Text of rows is printed only by `diffs`, which makes control characters visible.
"""

import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, Self

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.cli.console import LOG_EVERY_S, Console, progress_bar, table
from pipeline.config.settings import CurationConfig
from pipeline.curate import Outcome
from pipeline.dataset import facts
from pipeline.models.batch import ledger
from pipeline.models.factory import calls_at_a_time
from pipeline.report.diffs import sample_diffs
from pipeline.run import progress
from pipeline.run.context import Context
from pipeline.run.estimate import Estimate, selected_share
from pipeline.run.progress import Counts

# The calls of each stage, by their names in the journal.
_CALLS_OF = {"sample": ("sample",), "score": ("judge",), "revise": ("diagnose", "revise"), "filter": ("filter",)}
# Work on a row, in drafts: a revision is several answers, a judgement two prompts and no answer.
_REVISION, _JUDGEMENT = 3.5, 1.5
# The share of revisions that reach the judge, and seconds of one core that a draft takes, until the run knows better.
_JUDGED, _DRAFT_S = 0.4, 6.0


class Terminal:
    """The display of one run, on standard output."""

    def __init__(self) -> None:
        self.console = Console(goes_on=True)
        self._bar = ExitStack()
        self._downloading, self._downloaded = "", 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def warn(self, message: str) -> None:
        self.console.print(Text("note: ", "yellow") + Text(message), soft_wrap=True)

    def download(self, what: str, done: int, total: int) -> None:
        """Progress of a model's download, in bytes."""
        if what != self._downloading:
            self._bar.close()
            self._advance = self._bar.enter_context(progress_bar(what, total / 1e6, "MB"))
            self._downloading, self._downloaded = what, 0
        self._advance((done - self._downloaded) / 1e6)
        self._downloaded = done

    @contextmanager
    def watching(self, context: Context) -> Iterator[None]:
        """Show the stages of a run until the block ends."""
        self._bar.close()
        board = _Board(context)
        if self.console.is_terminal:
            with Live(get_renderable=board.table, console=self.console, refresh_per_second=4):
                yield
            return
        printed = ""

        def log() -> None:
            nonlocal printed
            line = board.line()
            if line and line != printed:
                self.console.print(line, soft_wrap=True)
            printed = line

        try:
            with progress.repeating(log, LOG_EVERY_S):
                yield
        finally:
            self.console.print(board.line(), soft_wrap=True)

    def estimate(self, estimate: Estimate) -> None:
        """The plan of a dry run."""
        for name, value in estimate.facts.items():
            self.console.print(Text(f"{name:>12}  ", "bold") + Text(value))
        columns = ("stage", "calls", "prompt tokens", "answer tokens", "cost")
        calls = table("estimated calls", columns, right=columns[1:])
        for row in estimate.calls:
            numbers = (f"{n:,}" for n in (row.calls, row.prompt_tokens, row.completion_tokens))
            calls.add_row(row.stage, *numbers, _dollars(row.cost_usd))
        calls.add_section()
        known = sum(row.cost_usd or 0.0 for row in estimate.calls)
        calls.add_row("total", "", "", "", _dollars(known) + (" + unknown" if estimate.cost_usd is None else ""))
        self.console.print(calls)
        if estimate.cost_usd is None:
            self.warn(
                "a model has no known price: set policy.price, reviser.price or reward.price to input,output, in dollars per "
                "million tokens"
            )
        self.console.print(
            "Nothing was called and nothing was spent. Estimated for the whole run from the source's rows, taking the policy's "
            "answers to be as long as the references; retries are not counted, answers already paid are not taken off."
        )

    def summary(self, outcome: Outcome) -> None:
        """Funnel, three diffs, paths and the next command."""
        self._bar.close()
        manifest = outcome.manifest
        if outcome.already_done:
            self.warn(
                "nothing to do: this data set is published already, by the same settings and source; 0 model calls"
            )
        funnel = table("where the rows went", ("stage", "in", "out", "rejected"), right=("in", "out"))
        for step in manifest["funnel"]:
            funnel.add_row(step["stage"], str(step["in"]), str(step["out"]), facts.counts(step["rejected"]))
            if notes := step.get("notes"):
                funnel.add_row("", "", "", facts.counts(notes), style="dim")
        self.console.print(funnel)
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
        rejected = "" if manifest["rows"]["published"] else " --rejected"
        self.console.print(f"next      figa show {shlex.quote(str(outcome.out))}{rejected}", soft_wrap=True)

    def rounds(self, rows: list[dict[str, Any]]) -> None:
        """What changed from round to round: a column a round, a row a figure, to fit a narrow terminal."""
        self._bar.close()
        names = [f"round {row['round']}" for row in rows]
        drawn = table("rounds", ["", *names], right=names)
        for figure in list(rows[0])[1:]:
            values = (f"{row[figure]:.3f}" if isinstance(row[figure], float) else row[figure] for row in rows)
            drawn.add_row(figure, *("–" if value is None else str(value) for value in values))
        self.console.print(drawn)


def _dollars(dollars: float | None) -> str:
    return "unknown price" if dollars is None else f"${dollars:.4f}"


class _Progress(NamedTuple):
    """How far a stage or a batch is. text: its counts, and what is known of rejects, cost and speed."""

    name: str
    done: int
    total: int
    text: str


class _Board:
    """Progress as read from disk, with rates since each stage was first seen at work."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._left = TimeLeft(context.config)
        self._started: dict[str, tuple[float, int]] = {}
        self._money: dict[str, tuple[int, float]] = {}
        self._money_due = 0.0

    def table(self) -> Table:
        """All stages of the run, then the batches at a provider, with bars."""
        grid, counts = Table.grid(padding=(0, 2)), progress.read(self._context.work)
        begun = {stage.name: stage for stage in self._stages(counts)}
        stages = [begun.get(name, _Progress(name, 0, 1, "")) for name in self._context.config.stages]
        for name, done, total, text in [*stages, *self._batches()]:
            grid.add_row(name, ProgressBar(total=max(total, 1), completed=done if total else 1, width=24), text)
        if left := self._left.text(counts):
            grid.add_row("", "", left)
        return grid

    def line(self) -> str:
        """The stages at work, or else all, and the batches, in one line."""
        counts = progress.read(self._context.work)
        stages = self._stages(counts)
        working = [stage for stage in stages if stage.done < stage.total]
        parts = [f"{each.name} {each.text}" for each in [*(working or stages), *self._batches()]]
        left = self._left.text(counts)
        return " · ".join([*parts, left] if left and working else parts)

    def _stages(self, counts: Mapping[str, Counts]) -> list[_Progress]:
        lines = []
        for stage in self._context.config.stages:
            if count := counts.get(stage):
                rejected = f" ({count.rejected} rejected)" if count.rejected else ""
                details = ", ".join(part for part in (self._cost(stage), self._speed(stage, count)) if part)
                text = f"{count.done}/{count.total}{rejected}" + (f" [{details}]" if details else "")
                lines.append(_Progress(stage, count.done, count.total, text))
        return lines

    def _batches(self) -> list[_Progress]:
        batches = ledger.unfinished(self._context.work)
        return [_Progress("batch", b.done, b.size, f"{b.done}/{b.size} ({b.state})") for b in batches]

    def _speed(self, stage: str, count: Counts) -> str:
        now = time.monotonic()
        since, before = self._started.setdefault(stage, (now, count.done))
        if count.done >= count.total or count.done <= before or now - since < 1:
            return ""
        rate = (count.done - before) / (now - since)
        left = round((count.total - count.done) / rate)
        shown = f"{rate:.1f} rows/s" if rate >= 0.5 else f"{1 / rate:.1f} s/row"
        return f"{shown}, {left // 60}:{left % 60:02d} left"

    def _cost(self, stage: str) -> str:
        start = time.monotonic()
        if start > self._money_due:
            self._money = self._context.journal.money()
            # Sums take longer with every response: a twentieth of the time at most.
            self._money_due = start + max(1, 20 * (time.monotonic() - start))
        spent = [self._money[call] for call in _CALLS_OF.get(stage, ()) if call in self._money]
        if not spent:
            return ""
        calls, dollars = (sum(values) for values in zip(*spent, strict=True))
        return f"{calls} calls" + (f", ${dollars:.4f}" if dollars else "")


class TimeLeft:
    """How long a run of embedded models will still take, from its beginning on.

    Counts drafts, and revisions and judgements as so many drafts. `text` is empty where models are not embedded.
    """

    def __init__(self, config: CurationConfig) -> None:
        local = all(settings.model.startswith("local/") for settings in (config.policy, config.reviser))
        self._known = config.needs_generation and local
        self._config = config
        self._began: float | None = None
        self._before = 0.0

    def text(self, counts: Mapping[str, Counts]) -> str:
        """Minutes left in all, or "" when nothing is known."""
        sample = counts.get("sample")
        if not self._known or not sample or not sample.total:
            return ""
        done, total = self._work(counts, sample.total)
        now = time.monotonic()
        if self._began is None:
            # What an earlier run did cost this one nothing.
            self._began, self._before = now, done
        mine, seconds = done - self._before, now - self._began
        rate = _DRAFT_S / calls_at_a_time(self._config.policy)
        if mine >= 2:
            rate = seconds / mine
        minutes = rate * max(0.0, total - done) / 60
        return f"about {max(1, round(minutes))} min left" if total > done else ""

    def _work(self, counts: Mapping[str, Counts], rows: int) -> tuple[float, float]:
        """What is done and what there is to do, in drafts."""
        selected = counts["select"].done - counts["select"].rejected if _finished(counts, "select") else None
        revisions = selected if selected is not None else rows * selected_share(self._config)
        revise, judged = counts.get("revise", Counts()), counts.get("filter", Counts())
        judgements = judged.total if _finished(counts, "revise") else revisions * _JUDGED
        judge = _JUDGEMENT if self._config.judge else 0.0
        done = counts["sample"].done + _REVISION * revise.done + judge * judged.done
        return done, rows + _REVISION * revisions + judge * judgements


def _finished(counts: Mapping[str, Counts], stage: str) -> bool:
    return stage in counts and counts[stage].total > 0 and counts[stage].done == counts[stage].total
