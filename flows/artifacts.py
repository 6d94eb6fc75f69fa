"""What a finished run leaves at Prefect: funnel, money, thresholds, sample diffs, links, and an event to start training by.

Text of rows goes into the diffs alone, control characters made visible, every line indented: Markdown shows it as code.
"""

from __future__ import annotations

import hashlib
import textwrap
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.events import emit_event

from pipeline.curate import Outcome
from pipeline.diffs import sample_diffs
from pipeline.storage import manifest

PUBLISHED = "figa.dataset.published"
_DIFFS = 5
# A line of the page that shows them.
_WIDTH = 80


def tell(outcome: Outcome) -> None:
    """Make the artifacts of a published data set and emit `figa.dataset.published`."""
    content = outcome.manifest
    source = content["source"]["name"]
    create_table_artifact(_funnel(content), key="figa-funnel", description=f"Where the rows of {source} went")
    create_table_artifact(_money(content), key="figa-money", description=_cost(content))
    create_table_artifact(
        _thresholds(content), key="figa-thresholds", description="Of rewards: as set, and for these rows"
    )
    if outcome.context:
        diffs = [diff.plain for diff in sample_diffs(outcome.out, content, outcome.context.tokenizer, _DIFFS)]
        create_markdown_artifact(_as_code(diffs), key="figa-diffs", description="[-removed-] and {+added+} tokens")
    place = outcome.out.resolve()
    create_link_artifact(place.as_uri(), link_text=str(place), key="figa-data", description="The published data set")
    report = place / "report.html"
    if report.exists():
        create_link_artifact(report.as_uri(), link_text="report.html", key="figa-report", description="The report")
    emit_event(
        event=PUBLISHED,
        resource={"prefect.resource.id": f"figa.dataset.{source}", "prefect.resource.name": str(place)},
        payload={"out": str(place), "manifest_sha256": _manifest_digest(outcome), **content["rows"]},
    )


def _funnel(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "stage": step["stage"],
            "in": step["in"],
            "out": step["out"],
            "rejected": ", ".join(f"{count} {reason}" for reason, count in step["rejected"].items()),
        }
        for step in content["funnel"]
    ]


def _money(content: dict[str, Any]) -> list[dict[str, Any]]:
    costs = content.get("cost_usd_by_call", {})
    calls = [{"call": call, "answers": n, "US dollars": costs.get(call, "")} for call, n in content["calls"].items()]
    return [*calls, {"call": "all", "answers": sum(content["calls"].values()), "US dollars": content["cost_usd"]}]


def _cost(content: dict[str, Any]) -> str:
    parts = ["Answers and US dollars, in this folder so far"]
    if uncertain := content.get("cost_uncertain_usd"):
        parts.append(f"up to ${uncertain:.4f} more for calls that ended without an answer")
    if unpriced := content.get("unpriced"):
        parts.append(f"no price known for {', '.join(unpriced)}")
    return "; ".join(parts)


def _thresholds(content: dict[str, Any]) -> list[dict[str, Any]]:
    meaning = {"eta1": "R(initial) <", "eta2": "R(reference) >", "eta3": "R(reference) − R(initial) >"}
    configured = content["settings"].get("selection", {})
    return [
        {"threshold": name, "rule": meaning[name], "as set": configured.get(name), "here": value}
        for name, value in content["thresholds"].items()
    ]


def _as_code(diffs: list[str]) -> str:
    lines = (line for diff in diffs for line in ["", *diff.split("\n")])
    wrapped = (part for line in lines for part in textwrap.wrap(line, _WIDTH, drop_whitespace=False) or [""])
    return "\n".join(f"    {part}" for part in wrapped) or "No pair was published."


def _manifest_digest(outcome: Outcome) -> str:
    return hashlib.sha256((outcome.out / manifest.NAME).read_bytes()).hexdigest()
