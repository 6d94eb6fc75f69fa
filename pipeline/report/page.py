"""The page: facts and charts through an autoescaping template, rows as inert JSON, all under a strict policy.

Nothing of the data is ever markup: the template escapes, the JSON can't end its element, and the script writes text nodes only.
"""

import base64
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.dataset import facts, measures
from pipeline.dataset.measures import OPERATIONS, Measures, histogram
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.report import charts, sample
from pipeline.report.sample import Shown
from pipeline.storage.atomic import write_text
from pipeline.text import redact_paths, visible

NAME = "report.html"
_HERE = Path(__file__).parent
_LENGTH = "A dot for each pair. A slope says that the reward pays for length."
_REWARDS = "Initial answers and references of all scored rows, published or not; revised answers of the pairs."


def write_report(
    out: Path,
    manifest: dict[str, Any],
    tokenizer: LabelTokenizer | None,
    *,
    note: str = "",
    advance: Callable[[int], None] = lambda rows: None,
) -> Path:
    """Write report.html into the data set's folder and return its path.

    tokenizer: the labels' own; with None pairs are shown by words, and `note` should say why. advance: called with the number
    of published rows read. Raises StorageError for files that are not as the manifest says.
    """
    files = measures.files_of(out, manifest)
    measured = measures.measure(files, advance)
    shown = sample.draw(files, measured, tokenizer)
    path = out / NAME
    gate = measures.gate_share(files.published, manifest["labels"]["gate"])
    write_text(path, render(redact_paths(manifest), measured, shown, note, gate))
    return path


def render(
    manifest: dict[str, Any], measured: Measures, shown: Shown, note: str = "", gate: float | None = None
) -> str:
    """The HTML of a data set's report. gate: the share of negative tokens that it passes, None where it isn't known."""
    return fill(
        "report.html",
        script="viewer.js",
        rows=embedded(
            {
                "run": manifest.get("run_digest", ""),
                "vocabulary": list(shown.vocabulary),
                "pairs": shown.pairs,
                "rejects": shown.rejects,
            }
        ),
        title=facts.title(manifest),
        tiles=facts.tiles(manifest, measured),
        origin=facts.origin(manifest),
        funnel=manifest["funnel"],
        totals=manifest["rows"],
        headline=facts.headline(manifest),
        examples=sample.examples(shown, measured.rejected),
        calls=facts.calls(manifest),
        charts=_charts(manifest, measured),
        shown=shown,
        notes=[text for text in (note, facts.gate(manifest, gate), *facts.warnings(manifest)) if text],
    )


def fill(template: str, script: str | None = None, **values: Any) -> str:
    """A page from a template of this folder, with the shared style and a policy that allows that style and script alone."""
    style = (_HERE / "report.css").read_text("utf-8")
    code = (_HERE / script).read_text("utf-8") if script else ""
    scripts = f"; script-src '{_csp_hash(code)}'" if script else ""
    policy = f"default-src 'none'; style-src '{_csp_hash(style)}'{scripts}; base-uri 'none'; form-action 'none'"
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_without_invisible,
    )
    # Style and script are this package's own; a test checks that neither ends its element.
    own = {"policy": Markup(policy), "style": Markup(style), "script": Markup(code)}  # noqa: S704
    text = environment.get_template(template).render(**own, **values)
    return text.encode("utf-8", "replace").decode()


def _without_invisible(value: Any) -> Any:
    """Text with invisible characters, bidi overrides above all, as codes; our own markup as it is."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def embedded(value: Any) -> Markup:
    """JSON for a script element that is not run: no character in it can end the element or start another."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _charts(manifest: dict[str, Any], measured: Measures) -> list[charts.Chart]:
    numbers = measured.numbers
    rewards = {**measured.scored, "revised": numbers["reward_revised"]}
    limits = {f"η{name[-1]}": value for name, value in (manifest.get("thresholds") or {}).items() if value is not None}
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        difference = {"reference − initial": measured.scored["reference"] - measured.scored["initial"]}
    longer = numbers["revised_tokens"] - numbers["initial_tokens"]
    operations = {side: counted.tolist() for side, counted in measured.operations.items()}
    lengths = {name: numbers[f"{name}_tokens"] for name in ("prompt", "initial", "revised")}
    drawn = [
        charts.distribution("Rewards", histogram(rewards), "reward", _REWARDS, _only(limits, "η1", "η2")),
        charts.distribution("Reference against initial", histogram(difference), "difference", "", _only(limits, "η3")),
        *_filter_charts(manifest, measured),
        charts.dots("Gain and length", longer, numbers["reward_gain"], "tokens added", "reward gain", _LENGTH),
        charts.counts("Diagnoses", dict(measured.reasons), "Why the initial answer was poor, as the reviser says."),
        charts.distribution("Lengths", histogram(lengths), "tokens", "Tokens of prompt and answers."),
        charts.shares("Tokens by operation", operations, OPERATIONS, "Kept tokens carry the weight γ or 0."),
    ]
    if len(measured.sources) > 1:
        drawn.append(charts.counts("Sources", dict(measured.sources)))
    return drawn


def _only(limits: dict[str, float], *names: str) -> dict[str, float]:
    return {name: limits[name] for name in names if name in limits}


def _filter_charts(manifest: dict[str, Any], measured: Measures) -> list[charts.Chart]:
    """Reward gain and edit distance of published pairs and rejected revisions, with what the filter accepts."""
    gains, distances = (
        {"published": measured.numbers[name], "rejected revisions": measured.refused[name]}
        for name in ("reward_gain", "edit_distance")
    )
    least, gain_note = facts.accepted_gain(manifest)
    above = None if least is None else (least, math.inf)
    gained = histogram(gains, through=least)
    edited = histogram(distances, limits=(0.0, 1.0))
    band, distance_note = facts.accepted_distance(manifest)
    return [
        charts.bars("Reward gain", gained, "revised − initial", gain_note, above),
        charts.bars("Edit distance", edited, "edits / tokens of the longer answer", distance_note, band),
    ]
