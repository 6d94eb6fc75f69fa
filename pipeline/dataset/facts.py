"""What the manifest says, in words and figures for the report's first screen."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.dataset.histogram import median
from pipeline.dataset.measures import Measures

Fact = tuple[str, str]
_RULES = {"eta1": "R(initial) <", "eta2": "R(reference) >", "eta3": "their difference >"}
# Stage and role of each kind of call, in the order of the run.
_CALLS = {
    "sample": ("sample", "policy"),
    "judge": ("score", "reward"),
    "diagnose": ("revise", "reviser"),
    "revise": ("revise", "reviser"),
}


def source_name(manifest: dict[str, Any]) -> str:
    """What the rows are from. The bundled sample stands in for a source, and has none of its rows."""
    source = manifest["source"]
    name = str(source.get("name", "unknown source"))
    return f"the bundled sample in place of {name}" if source.get("resolved") == "bundled-sample" else name


def tiles(manifest: dict[str, Any], measured: Measures) -> list[Fact]:
    """The figures that are looked at first."""
    rows = manifest["rows"]
    published = rows["published"]
    told = [("pairs published", f"{published:,}"), ("of rows read", f"{rows['read']:,}")]
    share = published / rows["read"] if rows["read"] else 0.0
    told.append(("survived", f"{share:.0%}"))
    gain, distance = (median(measured.numbers[name]) for name in ("reward_gain", "edit_distance"))
    if gain is not None:
        gains = measured.numbers["reward_gain"]
        better = float(np.mean(gains[np.isfinite(gains)] > 0))
        told += [("median reward gain", f"{gain:+.2f}"), ("revisions scored better", f"{better:.0%}")]
    if distance is not None:
        told.append(("median edit distance", f"{distance:.2f}"))
    return [*told, ("paid for models", cost(manifest))]


def cost(manifest: dict[str, Any]) -> str:
    """US dollars, with what is not known about them."""
    paid, uncertain = manifest.get("cost_usd", 0.0), manifest.get("cost_uncertain_usd")
    if manifest.get("unpriced"):
        return f"${paid:,.2f} + unknown" if paid else "unknown"
    return f"${paid:,.2f}" + (f" to {paid + uncertain:,.2f}" if uncertain else "")


def made(manifest: dict[str, Any]) -> list[Fact]:
    """What the data set was made from, and by which models."""
    source, labels = manifest["source"], manifest["labels"]
    told = [("Source", _part(source))]
    told += [(f"Part, weight {part['weight']:g}", _part(part)) for part in source.get("parts", [])]
    told += [(name.capitalize(), str(source[name])) for name in ("split", "licence") if source.get(name)]
    for role, model in manifest["models"].items():
        told.append((f"{role.capitalize()} model", str(model["name"])))
    etas = (manifest.get("thresholds") or {}).items()
    rules = [f"{_RULES.get(name, name)} {value:.3g}" for name, value in etas if value is not None]
    told.append(("Selected were rows of", ", ".join(rules) or "any score"))
    told.append(("Tokenizer of the labels", f"{labels['tokenizer']} (fingerprint {str(labels['fingerprint'])[:12]})"))
    weights = ", ".join(f"{sign} = {labels[name]}" for sign, name in (("α", "alpha"), ("β", "beta"), ("γ", "gamma")))
    told.append(("Labels", f"{labels['signal']}, by {labels['granularity']}, {weights}"))
    if manifest.get("prompts"):
        told.append(("Reviser prompts", f"digest {str(manifest['prompts'])[:12]}"))
    return [*told, ("Made by", f"figa-pipeline {manifest['version']}, schema {manifest['schema_version']}")]


def calls(manifest: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Stage, call, number of answers, US dollars: "–" where the manifest doesn't say, "unknown" without a price."""
    paid, unpriced = manifest.get("cost_usd_by_call") or {}, set(manifest.get("unpriced") or ())
    names = {role: model["name"] for role, model in manifest["models"].items()}
    # Several judges have a name together.
    asked = {role: {names.get(role)} for role in ("policy", "reviser")}
    asked["reward"] = unpriced - asked["policy"] - asked["reviser"] | {names.get("reward")}
    counted = manifest.get("calls") or {}
    told = []
    for name in sorted(counted, key=lambda call: list(_CALLS).index(call) if call in _CALLS else len(_CALLS)):
        stage, role = _CALLS.get(name, (name, ""))
        dollars = f"${paid[name]:,.4f}" if name in paid else "–"
        if not paid.get(name) and asked.get(role, set()) & unpriced:
            dollars = "unknown"
        told.append((stage, name, f"{counted[name]:,}", dollars))
    return told


def _part(source: dict[str, Any]) -> str:
    """A source by name, kind, and, from the Hub, id and revision: what it was on somebody's disk is nobody's business."""
    place = str(source.get("location") or "") if source.get("resolved") == "hub" else ""
    parts = (str(source.get("resolved") or ""), place, str(source.get("revision") or ""))
    return " ".join([str(source.get("name", "unknown source")), *(f"({part})" for part in parts if part)])


def least_gain(manifest: dict[str, Any]) -> float | None:
    """The reward gain from which on revisions are accepted; None where nothing was scored or it is not known."""
    settings = _filter(manifest)
    if not settings or manifest["models"].get("reward", {}).get("name") in (None, "none"):
        return None
    return float(settings.get("min_reward_gain") or 0.0)


def gain_note(manifest: dict[str, Any]) -> str:
    least = least_gain(manifest)
    return "By the reward model." + (f" Accepted: from {least:g} on." if least is not None else "")


def band(manifest: dict[str, Any]) -> tuple[float, float] | None:
    """Edit distances that are accepted: above the first, up to the second."""
    settings = _filter(manifest)
    limits = settings.get("min_distance"), settings.get("max_distance")
    return None if None in limits else (float(limits[0]), float(limits[1]))  # type: ignore[arg-type]


def band_note(manifest: dict[str, Any]) -> str:
    accepted = band(manifest)
    if accepted is None:
        return "Token edits, as share of the longer answer."
    return f"Accepted: above {accepted[0]:g}, up to {accepted[1]:g}. Revisions outside were rejected."


def _filter(manifest: dict[str, Any]) -> dict[str, Any]:
    return dict((manifest.get("settings") or {}).get("filter") or {})
