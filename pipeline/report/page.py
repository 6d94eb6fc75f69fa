"""The page: facts and charts through an autoescaping template, rows as inert JSON, all under a strict policy.

Nothing of the data is ever markup: the template escapes, the JSON can't end its element, and the script writes text nodes only.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.dataset import facts
from pipeline.dataset.histogram import histogram
from pipeline.dataset.measures import OPERATIONS, REWARDS, Measures
from pipeline.report import charts
from pipeline.report.sample import Shown
from pipeline.rewards import trust
from pipeline.text import visible

_HERE = Path(__file__).parent
_SHORT = {"reward_reference": "reference", "reward_initial": "initial", "reward_revised": "revised"}


def render(manifest: dict[str, Any], measured: Measures, shown: Shown, note: str = "") -> str:
    """The HTML of a data set's report."""
    rows = {
        "vocabulary": shown.vocabulary,
        "pairs": shown.pairs,
        "rejects": shown.rejects,
    }
    return fill(
        "report.html",
        script="viewer.js",
        rows=embedded(rows),
        title=f"FIGA pairs from {facts.source_name(manifest)}",
        tiles=facts.tiles(manifest, measured),
        made=facts.made(manifest),
        funnel=manifest["funnel"],
        totals=manifest["rows"],
        calls=facts.calls(manifest),
        charts=_charts(manifest, measured),
        shown=shown,
        notes=[text for text in (note, *trust.warnings(manifest)) if text],
    )


def fill(template: str, script: str | None = None, **values: Any) -> str:
    """A page of this folder with the shared style, and the policy that allows exactly that style and script."""
    style = (_HERE / "report.css").read_text("utf-8")
    code = (_HERE / script).read_text("utf-8") if script else ""
    # Both are written here; a test holds them free of what would end their element.
    policy = f"default-src 'none'; style-src '{_source(style)}'"
    policy += f"; script-src '{_source(code)}'" if script else ""
    policy += "; base-uri 'none'; form-action 'none'"
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_seen,
    )
    text = environment.get_template(template).render(
        policy=Markup(policy),  # noqa: S704
        style=Markup(style),  # noqa: S704
        script=Markup(code),  # noqa: S704
        **values,
    )
    return text.encode("utf-8", "replace").decode()


def _seen(value: Any) -> Any:
    """What can't be seen in a text, bidi overrides above all, as codes; markup of our own as it is."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def embedded(value: Any) -> Markup:
    """JSON for a script element that is not run: no character in it can end the element or start another."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704


def _source(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _charts(manifest: dict[str, Any], measured: Measures) -> list[charts.Chart]:
    n, refused = measured.numbers, measured.refused
    operations = {
        side: {name: int(count) for name, count in zip(OPERATIONS, counted, strict=True)}
        for side, counted in measured.operations.items()
    }
    lengths = {name.removesuffix("_tokens"): n[name] for name in ("prompt_tokens", "initial_tokens", "revised_tokens")}
    gains, distances = (
        {"published": n[name], "rejected revisions": refused[name]} for name in ("reward_gain", "edit_distance")
    )
    least = facts.least_gain(manifest)
    made = [
        charts.distribution(
            "Rewards",
            histogram({_SHORT[name]: n[name] for name in REWARDS}),
            "reward",
            "What the reward model says of the three answers of the published pairs.",
        ),
        charts.bars(
            "Reward gain",
            histogram(gains, through=least),
            "revised − initial",
            facts.gain_note(manifest),
            None if least is None else (least, math.inf),
        ),
        charts.bars(
            "Edit distance",
            histogram(distances, limits=(0.0, 1.0)),
            "edits / tokens of the longer answer",
            facts.band_note(manifest),
            facts.band(manifest),
        ),
        charts.counts("Diagnoses", dict(measured.reasons), "Why the initial answer was poor, as the reviser says."),
        charts.distribution("Lengths", histogram(lengths), "tokens", "Tokens of prompt and answers."),
        charts.shares("Tokens by operation", operations, "Kept tokens carry the weight γ or 0."),
    ]
    if len(measured.sources) > 1:
        made.append(charts.counts("Sources", dict(measured.sources)))
    return made
