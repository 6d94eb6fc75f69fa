"""What the manifest says, in words and figures for the report's first screen."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.report.histogram import median
from pipeline.report.measures import Measures

Fact = tuple[str, str]


def source_name(manifest: dict[str, Any]) -> str:
    return str(manifest["source"].get("name", "unknown source"))


def tiles(manifest: dict[str, Any], measured: Measures) -> list[Fact]:
    """The figures that are looked at first."""
    rows = manifest["rows"]
    published = rows["published"]
    told = [("pairs published", f"{published:,}"), ("of rows read", f"{rows['read']:,}")]
    share = published / rows["read"] if rows["read"] else 0.0
    told.append(("survived", f"{share:.0%}"))
    gain, distance = (median(measured.numbers[name]) for name in ("reward_gain", "edit_distance"))
    if gain is not None:
        better = float(np.mean(measured.numbers["reward_gain"] > 0))
        told += [("median reward gain", f"{gain:+.2f}"), ("revisions scored better", f"{better:.0%}")]
    if distance is not None:
        told.append(("median edit distance", f"{distance:.2f}"))
    return [*told, ("paid for models", cost(manifest))]


def cost(manifest: dict[str, Any]) -> str:
    unknown = " + unknown" if manifest.get("unpriced") else ""
    return f"${manifest.get('cost_usd', 0.0):,.2f}{unknown}"


def made(manifest: dict[str, Any]) -> list[Fact]:
    """What the data set was made from, and by which models."""
    source, labels = manifest["source"], manifest["labels"]
    from_ = [str(source.get(key) or "") for key in ("resolved", "revision")]
    told = [("Source", " ".join([source_name(manifest), *(f"({part})" for part in from_ if part)]))]
    told += [(name.capitalize(), str(source[name])) for name in ("split", "licence") if source.get(name)]
    for role, model in manifest["models"].items():
        told.append((f"{role.capitalize()} model", str(model["name"])))
    etas = manifest.get("thresholds") or {}
    numbers = [f"{name} {'off' if value is None else f'{value:.3g}'}" for name, value in etas.items()]
    told.append(("Selection thresholds", ", ".join(numbers) or "none"))
    told.append(("Tokenizer of the labels", f"{labels['tokenizer']} (fingerprint {str(labels['fingerprint'])[:12]})"))
    weights = ", ".join(f"{sign} = {labels[name]}" for sign, name in (("α", "alpha"), ("β", "beta"), ("γ", "gamma")))
    told.append(("Labels", f"{labels['signal']}, by {labels['granularity']}, {weights}"))
    if manifest.get("prompts"):
        told.append(("Reviser prompts", f"digest {str(manifest['prompts'])[:12]}"))
    return [*told, ("Made by", f"figa-pipeline {manifest['version']}, schema {manifest['schema_version']}")]


def calls(manifest: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Stage, calls, US dollars; the last is empty where the manifest doesn't say."""
    paid = manifest.get("cost_usd_by_call") or {}
    return [
        (name, f"{count:,}", f"${paid[name]:,.4f}" if name in paid else "")
        for name, count in (manifest.get("calls") or {}).items()
    ]


def gain_note(manifest: dict[str, Any]) -> str:
    least = _filter(manifest).get("min_reward_gain")
    return "What the revision gained." + (f" Accepted: from {least:g} on." if least is not None else "")


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
