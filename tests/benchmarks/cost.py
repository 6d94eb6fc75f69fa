"""Dollars and hours for 10,000, 100,000 and 1,000,000 queries, from the tokens that a small run really used.

`python -m tests.benchmarks.cost DIR [DIR ...]` reads finished runs, one a style of revision: the tokens of their journals, the
shares of their funnels. Yours, of a few hundred rows with your own models, says most. `--pilot DIR` makes two, in the styles
rewrite and edits, on 160 rows: the embedded policy answers (its server counts the tokens), the scripted reviser of
tests/loopback mends (the policy's own tokenizer counts them): a word or two, and a sentence of the reference. Without the Hub,
the rows are of the bundled sample, or of what --input names.

What a run can't know is a flag with a default: how fast the provider answers and what its limits are. Prices are those of
genai-prices, or of FIGA_PRICES. No prompt counts as cached. Models that think before they answer bill tokens that the
journal of another model doesn't have: for them, make the run with the model itself.
"""

from __future__ import annotations

import argparse
import functools
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.config.loading import load_config
from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import LabelSettings, PolicySettings
from pipeline.curate import curate, in_threads
from pipeline.dataset import manifest
from pipeline.labels.loading import open_tokenizer
from pipeline.models.journal import Answer
from pipeline.models.prices import price_of
from tests.benchmarks.measure import Figure
from tests.benchmarks.revision_styles import begin_with_drafts_of
from tests.conftest import SAMPLE, Silent
from tests.labels.families import byte_level, fast
from tests.loopback import LoopbackServer, pipeline
from tests.loopback.behaviours import honour_schema
from tests.loopback.chat import TURN_OVERHEAD, ChatRequest, Reply, Usage
from tests.loopback.reviser import reviser

SIZES = (10_000, 100_000, 1_000_000)
STYLES = ("rewrite", "edits")
_ROWS = 160
_POLICY = "openai/gpt-4.1-nano"
_REVISERS = (
    "openai/gpt-4o-mini",
    "openai/gpt-4.1-mini",
    "openai/gpt-4.1",
    "anthropic/claude-haiku-4-5",
    "anthropic/claude-sonnet-4-5",
)


@dataclass(frozen=True, slots=True)
class Stage:
    """Calls, and tokens of their prompts and answers, a row that was asked."""

    calls: float
    prompt: float
    answer: float

    def __mul__(self, share: float) -> Stage:
        return Stage(self.calls * share, self.prompt * share, self.answer * share)

    def __add__(self, other: Stage) -> Stage:
        return Stage(self.calls + other.calls, self.prompt + other.prompt, self.answer + other.answer)

    def dollars(self, model: str, mode: str) -> float:
        """Raises SystemExit for a model without a price."""
        price = price_of(ModelSpec.parse(model), mode)
        if price is None:
            raise SystemExit(f"{model} has no known price: name a table that has it in FIGA_PRICES")
        return price.of(Answer("", "", 0, prompt_tokens=1, completion_tokens=0)) * self.prompt + self.answer * price.of(
            Answer("", "", 0, prompt_tokens=0, completion_tokens=1)
        )


@dataclass(frozen=True, slots=True)
class Pilot:
    """What a finished run used. selected: of the rows that were asked; published: of the selected."""

    style: str
    told: str
    sample: Stage
    revision: Stage
    selected: float
    published: float


@dataclass(frozen=True, slots=True)
class Provider:
    """What the hours depend on besides the tokens: calls at a time, seconds before an answer begins, its tokens a second,
    and the account's limits a minute."""

    concurrency: int = 64
    first_token_s: float = 0.6
    tokens_s: float = 60.0
    rpm: int = 5_000
    tpm: int = 4_000_000

    def __str__(self) -> str:
        return (
            f"{self.concurrency} calls at a time, {self.first_token_s:g} s before an answer begins, {self.tokens_s:g} tokens a "
            f"second, and limits of {self.rpm:,} calls and {self.tpm:,} tokens a minute"
        )

    def hours(self, asked: Stage) -> float:
        """Of chat mode: the slowest of answering, of the limit on calls and of that on tokens."""
        seconds = (asked.calls * self.first_token_s + asked.answer / self.tokens_s) / self.concurrency
        minutes = max(asked.calls / self.rpm, (asked.prompt + asked.answer) / self.tpm)
        return max(seconds / 3600, minutes / 60)


def read(folder: Path, selected: float | None = None, published: float | None = None) -> Pilot:
    """The pilot in a run's folder. Raises SystemExit without a manifest, a reviser's answers or tokens told."""
    made = manifest.load(folder)
    if made is None:
        raise SystemExit(f"{folder}: no run's folder: it has no manifest.json")
    names = [str(made["settings"][who]["model"]) for who in ("policy", "reviser")]
    query = """SELECT stage, count(*), total(json_extract(answer, '$.prompt_tokens')),
               total(json_extract(answer, '$.completion_tokens')) FROM answers WHERE model IN (?, ?) GROUP BY stage"""
    with closing(sqlite3.connect(f"file:{folder / 'work' / 'journal.db'}?mode=ro", uri=True)) as db:
        counted = {stage: Stage(*numbers) for stage, *numbers in db.execute(query, names)}
    steps = {step["stage"]: step for step in made["funnel"]}
    missing = [stage for stage in ("sample", "diagnose", "revise") if stage not in counted or not counted[stage].prompt]
    if missing:
        raise SystemExit(
            f"{folder}: its journal has no tokens of {', '.join(missing)}: not a whole run of three models"
        )
    asked, chosen = steps["sample"]["in"], steps["revise"]["in"]
    models, source = made["settings"], made["source"]
    return Pilot(
        models["reviser"]["style"],
        f"{asked} rows of {source['resolved']}, policy {_name(models['policy'])}, reviser {_name(models['reviser'])}",
        counted["sample"] * (1 / asked),
        (counted["diagnose"] + counted["revise"]) * (1 / chosen),
        chosen / asked if selected is None else selected,
        made["rows"]["published"] / chosen if published is None else published,
    )


def _name(settings: dict[str, Any]) -> str:
    return str(settings["model"]).partition("@")[0]


def make_pilots(folder: Path, source: Path | None, rows: int, *, scripted: bool = False) -> list[Path]:
    """Runs in both styles on the same rows; drafts are asked once, and diagnoses. scripted: the policy too, for tests."""
    models: dict[str, Any] = {}
    if scripted:
        fast(byte_level()).save_pretrained(folder / "tokenizer")
        models["labels.tokenizer"] = str(folder / "tokenizer")
    count = functools.partial(_count, [])
    with LoopbackServer(pipeline if scripted else functools.partial(_counted, count), key=None) as server:
        models["reviser.model"] = f"openai/scripted-reviser@{server.openai_url}"
        if scripted:
            models["policy.model"] = f"openai/scripted-policy@{server.openai_url}"
        for style in STYLES:
            if style != STYLES[0]:
                begin_with_drafts_of(folder / STYLES[0], folder / style)
            flags = {"source.name": "hh-rlhf", "source.limit": rows, "reviser.style": style, **models}
            flags |= {"output.dir": str(folder / style)} | ({"source.input": str(source)} if source else {})
            outcome = curate(load_config(flags=flags), in_threads, Silent())
            assert outcome.context
            outcome.context.journal.close()
    return [folder / style for style in STYLES]


def _counted(count: Callable[[str], int], request: ChatRequest) -> Reply:
    """The scripted reviser, its tokens counted as a real server would; a few a turn for the template."""
    reply = honour_schema(request, reviser(request))
    prompt = sum(count(turn.text) + TURN_OVERHEAD for turn in request.messages)
    return replace(reply, usage=Usage(prompt, count(reply.text or "")))


def _count(opened: list[Any], text: str) -> int:
    if not opened:
        opened.append(open_tokenizer(PolicySettings().model, LabelSettings()))
    return len(opened[0]._tokenizer.encode(text, add_special_tokens=False))


def tables(pilots: list[Pilot], provider: Provider, revisers: tuple[str, ...], policy: str) -> str:
    """The whole page, Markdown."""
    header = " | ".join(f"{size:,}" for size in SIZES)
    known = [price_of(ModelSpec.parse(model)) for model in (policy, *revisers)]
    lines = [f"Prices: {'; '.join(dict.fromkeys(price.origin for price in known if price))}. Measured:", ""]
    for pilot in pilots:
        sample, revision = pilot.sample, pilot.revision
        lines.append(
            f"- {pilot.style}: {pilot.told}. A query: {sample.prompt:.0f} prompt and {sample.answer:.0f} answer tokens for "
            f"its draft. A selected one: {revision.calls:.1f} calls with {revision.prompt:.0f} prompt and "
            f"{revision.answer:.0f} answer tokens for diagnosis and revision. Selected: {pilot.selected:.0%} of the queries; "
            f"published: {pilot.published:.0%} of these."
        )
    lines += [
        "",
        f"| dollars for so many queries | mode | {header} | a published pair |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, stage, model, yields in _lines(pilots, revisers, policy):
        for mode in ("chat", "batch"):
            each = stage.dollars(model, "live" if mode == "chat" else "batch")
            costs = " | ".join(_money(size * each) for size in SIZES)
            pair = f"{each / yields:.5f}" if yields else ""
            lines.append(f"| {name} | {mode} | {costs} | {pair} |")
    lines += ["", f"| hours | {header} |", "|---|---:|---:|---:|"]
    for pilot in pilots:
        asked = pilot.sample + pilot.revision * pilot.selected
        hours = " | ".join(f"{provider.hours(asked * size):.2g}" for size in SIZES)
        lines.append(f"| {pilot.style}, chat | {hours} |")
    lines.append(f"| either style, batch: three rounds, each within a day | {' | '.join(['up to 72'] * len(SIZES))} |")
    lines += ["", f"Hours are assumed at {provider}."]
    return "\n".join(lines)


def _lines(pilots: list[Pilot], revisers: tuple[str, ...], policy: str) -> list[tuple[str, Stage, str, float]]:
    """What is paid for: its name, what a query takes, the model, and the share of queries that are published."""
    drafts = (f"drafts by {policy}", pilots[0].sample, policy, 0.0)
    return [drafts] + [
        (
            f"revisions by {model}, {pilot.style}",
            pilot.revision * pilot.selected,
            model,
            pilot.selected * pilot.published,
        )
        for model in revisers
        for pilot in pilots
    ]


def _money(dollars: float) -> str:
    return f"{dollars:,.2f}" if dollars < 100 else f"{dollars:,.0f}"


def run(*, quick: bool) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folders = make_pilots(Path(name), SAMPLE if quick else None, 16 if quick else _ROWS, scripted=quick)
        pilots = [read(folder) for folder in folders]
    figures = []
    for pilot in pilots:
        asked = pilot.sample + pilot.revision * pilot.selected
        figures += [
            Figure(f"{pilot.style}: prompt tokens a query", asked.prompt, "tokens"),
            Figure(f"{pilot.style}: answer tokens a query", asked.answer, "tokens"),
            Figure(f"{pilot.style}: hours for 100,000 queries", Provider().hours(asked * 100_000), "h"),
        ]
    return figures + [
        Figure(f"{name}, {mode}", 10_000 * stage.dollars(model, mode), "$ for 10,000 queries")
        for name, stage, model, _ in _lines(pilots, _REVISERS, _POLICY)
        for mode in ("live", "batch")
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.cost",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="*", type=Path, metavar="DIR")
    parser.add_argument("--pilot", type=Path, metavar="DIR", help="make the two runs here, or go on with them")
    parser.add_argument("--input", type=Path, help="rows in hh-rlhf's format for --pilot")
    parser.add_argument("--rows", type=int, default=_ROWS, help="of --pilot")
    parser.add_argument(
        "--selected", type=float, help="share of the queries that are revised; default: that of the run"
    )
    parser.add_argument("--published", type=float, help="share of the revised that pass the filter; default: the run's")
    parser.add_argument(
        "--model", action="append", metavar="NAME", help=f"revisers to price; default: {', '.join(_REVISERS)}"
    )
    parser.add_argument("--policy", default=_POLICY, metavar="NAME", help="who answers, if not your own server")
    for field, default in ((f, getattr(Provider(), f)) for f in Provider.__dataclass_fields__):
        parser.add_argument(f"--{field.replace('_', '-')}", type=type(default), default=default)
    given = parser.parse_args(arguments)
    folders = make_pilots(given.pilot, given.input, given.rows) if given.pilot else given.runs
    if not folders:
        parser.error("name the folders of finished runs, or --pilot DIR to make two")
    pilots = [read(folder, given.selected, given.published) for folder in folders]
    provider = Provider(**{field: getattr(given, field) for field in Provider.__dataclass_fields__})
    print(tables(pilots, provider, tuple(given.model or _REVISERS), given.policy))
    return 0


if __name__ == "__main__":
    sys.exit(main())
