"""What a finished run leaves at Prefect: one page with funnel, money, thresholds and sample diffs, and an event to go on from.

Text of rows goes into the diffs alone, control characters made visible, every line indented: Markdown shows it as code.
"""

import hashlib
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event

from pipeline.curate import Outcome
from pipeline.dataset import facts, manifest
from pipeline.dataset.card import cell
from pipeline.report.diffs import sample_diffs

PUBLISHED = "figa.dataset.published"
# The event of a run with nothing to do: no reason to train again.
UNCHANGED = "figa.dataset.unchanged"
VERIFIED = "figa.dataset.verified"
_DIFFS = 5
# Characters per line of Prefect's page.
_WIDTH = 80


def publish(outcome: Outcome) -> None:
    """Emit the event of a published data set, create its summary, and log the warnings of it."""
    content = outcome.manifest
    for warning in facts.warnings(content):
        get_run_logger().warning(warning)
    announce(outcome.out, content, UNCHANGED if outcome.already_done else PUBLISHED)
    diffs: list[str] = []
    if outcome.context and outcome.context.config.run.artifacts == "texts":
        diffs = [diff.plain for diff in sample_diffs(outcome.out, content, outcome.context.tokenizer, _DIFFS)]
    title = cell(facts.title(content))
    create_markdown_artifact(summary(outcome.out, content, diffs), key="figa-summary", description=title)


def announce(out: Path, content: dict[str, Any], event: str = PUBLISHED) -> None:
    """Emit an event of the data set in `out`, with the sha256 of its manifest, whose content is `content`."""
    place = str(out.resolve())
    digest = hashlib.sha256((out / manifest.NAME).read_bytes()).hexdigest()
    resource = {"prefect.resource.id": f"figa.dataset.{content['source']['name']}", "prefect.resource.name": place}
    emit_event(event=event, resource=resource, payload={"out": place, "manifest_sha256": digest, **content["rows"]})


def summary(out: Path, content: dict[str, Any], diffs: list[str]) -> str:
    """A publication on one page of Markdown. Folders are text: a browser opens no link to another machine's files."""
    funnel = ((step["stage"], step["in"], step["out"], facts.counts(step["rejected"])) for step in content["funnel"])
    money = [*facts.calls(content), ("all", "", f"{sum(content['calls'].values()):,}", f"${content['cost_usd']:,.4f}")]
    configured = content["settings"].get("selection", {})
    thresholds = ((facts.RULES[name], configured.get(name), value) for name, value in content["thresholds"].items())
    warnings = [f"- {cell(line)}" for line in (*facts.warnings(content), *facts.spent(content))]
    lines = [
        f"**{facts.headline(content)}**, publication {content['publication']}, in {cell(out.resolve())}",
        "## Where the rows went",
        _table(("stage", "in", "out", "rejected"), funnel),
        "## Answers and US dollars, in this folder so far",
        _table(("stage", "call", "answers", "US dollars"), money),
        "\n".join(warnings),
        "## Thresholds",
        _table(("rule", "as set", "for these rows"), thresholds),
        "## The best pairs: [-removed-] and {+added+} tokens",
        _as_code(diffs),
    ]
    return "\n\n".join(lines)


def _table(names: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    lines = [names, ("---",) * len(names), *((cell(value) for value in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _as_code(diffs: list[str]) -> str:
    lines = (line for diff in diffs for line in ["", *diff.split("\n")])
    wrapped = (part for line in lines for part in textwrap.wrap(line, _WIDTH, drop_whitespace=False) or [""])
    return "\n".join(f"    {part}" for part in wrapped) or "None is new."
