"""What a finished run leaves at Prefect: funnel, money, thresholds, sample diffs, links, and an event to start training by.

Text of rows goes into the diffs alone, control characters made visible, every line indented: Markdown shows it as code.
"""

from __future__ import annotations

import hashlib
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.events import emit_event

from pipeline.curate import Outcome
from pipeline.diffs import sample_diffs
from pipeline.storage import manifest

PUBLISHED = "figa.dataset.published"
_DIFFS = 5


def tell(outcome: Outcome) -> None:
    """Make the artifacts of a published data set and emit `figa.dataset.published`."""
    content = outcome.manifest
    source = content["source"]["name"]
    create_table_artifact(_funnel(content), key="figa-funnel", description=f"Where the rows of {source} went")
    create_table_artifact(_money(content), key="figa-money", description="Calls and US dollars, this folder in all")
    create_table_artifact([content["thresholds"]], key="figa-thresholds", description="η1 η2 η3 as resolved, scores")
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
    calls = [{"calls of": stage, "calls": count, "US dollars": ""} for stage, count in content["calls"].items()]
    return [*calls, {"calls of": "all", "calls": sum(content["calls"].values()), "US dollars": content["cost_usd"]}]


def _as_code(diffs: list[str]) -> str:
    lines = [f"    {line}" for diff in diffs for line in ["", *diff.split("\n")]]
    return "\n".join(lines) or "No pair was published."


def _manifest_digest(outcome: Outcome) -> str:
    return hashlib.sha256((outcome.out / manifest.NAME).read_bytes()).hexdigest()
