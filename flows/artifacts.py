"""What a finished run leaves at Prefect: funnel, money, thresholds, sample diffs, links, and an event to start training by.

Text of rows goes into the diffs alone, control characters made visible, every line indented: Markdown shows it as code.
"""

import hashlib
import textwrap
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.events import emit_event

from pipeline.curate import Outcome
from pipeline.dataset import facts, manifest
from pipeline.dataset.card import cell
from pipeline.report.diffs import sample_diffs
from pipeline.storage.remote import RemotePath

PUBLISHED = "figa.dataset.published"
# The event of a run with nothing to do: no reason to train again.
UNCHANGED = "figa.dataset.unchanged"
_DIFFS = 5
# Characters per line of Prefect's page.
_WIDTH = 80


def publish(outcome: Outcome) -> None:
    """Emit the event of a published data set, create its artifacts, and log the warnings of its summary."""
    content = outcome.manifest
    for warning in facts.warnings(content):
        get_run_logger().warning(warning)
    announce(outcome.out, content, UNCHANGED if outcome.already_done else PUBLISHED)
    funnel = [
        {"stage": step["stage"], "in": step["in"], "out": step["out"], "rejected": facts.counts(step["rejected"])}
        for step in content["funnel"]
    ]
    source = content["source"]["name"]
    create_table_artifact(funnel, key="figa-funnel", description=f"Where the rows of {source} went")
    calls = [*facts.calls(content), ("all", "", f"{sum(content['calls'].values()):,}", f"${content['cost_usd']:,.4f}")]
    money = [dict(zip(("stage", "call", "answers", "US dollars"), call, strict=True)) for call in calls]
    create_table_artifact(money, key="figa-money", description=_cost(content))
    configured = content["settings"].get("selection", {})
    thresholds = [
        {"threshold": name, "rule": facts.RULES[name], "as set": configured.get(name), "here": value}
        for name, value in content["thresholds"].items()
    ]
    create_table_artifact(thresholds, key="figa-thresholds", description="Of rewards: as set, and for these rows")
    if outcome.context:
        diffs = [diff.plain for diff in sample_diffs(outcome.out, content, outcome.context.tokenizer, _DIFFS)]
        create_markdown_artifact(_as_code(diffs), key="figa-diffs", description="[-removed-] and {+added+} tokens")
    place = outcome.out.resolve()
    _link(place, str(place), "figa-data", "The published data set")
    _link(place / "report.html", "report.html", "figa-report", "The report")


def announce(out: Path, content: dict[str, Any], event: str = PUBLISHED) -> None:
    """Emit an event of the data set in `out`, with the sha256 of its manifest, whose content is `content`."""
    place = str(out.resolve())
    digest = hashlib.sha256((out / manifest.NAME).read_bytes()).hexdigest()
    resource = {"prefect.resource.id": f"figa.dataset.{content['source']['name']}", "prefect.resource.name": place}
    emit_event(event=event, resource=resource, payload={"out": place, "manifest_sha256": digest, **content["rows"]})


def _link(place: Path, text: str, key: str, about: str) -> None:
    if place.exists():
        url = str(place) if isinstance(place, RemotePath) else place.as_uri()
        create_link_artifact(url, link_text=text, key=key, description=about)


def _cost(content: dict[str, Any]) -> str:
    return cell("; ".join(["Answers and US dollars, in this folder so far", *facts.spent(content)]))


def _as_code(diffs: list[str]) -> str:
    lines = (line for diff in diffs for line in ["", *diff.split("\n")])
    wrapped = (part for line in lines for part in textwrap.wrap(line, _WIDTH, drop_whitespace=False) or [""])
    return "\n".join(f"    {part}" for part in wrapped) or "No pair was published."
