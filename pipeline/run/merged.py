"""What the manifest of a merged data set says: what its parts have in common, and the sums of what can be added.

Sees manifests only, neither files nor rows. What differs (sources, models, thresholds) is in `lineage`, per part.
"""

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline import schema
from pipeline.config.settings import LabelSettings
from pipeline.errors import UsageError
from pipeline.run.publish import account, funnel

Manifest = dict[str, Any]


def check_same(inputs: Sequence[tuple[Path, Manifest]]) -> None:
    """Raises UsageError for a newer schema, or naming the first thing in which labels of two data sets differ."""
    first, one = inputs[0]
    for root, other in inputs:
        if schema.is_newer(other["schema_version"]):
            what = f"has schema version {other['schema_version']}, and this program writes {schema.SCHEMA_VERSION}"
            raise UsageError(f"{root}: {what}: columns would be lost; install figa-pipeline {other['version']}")
        theirs = _what_determines(other["labels"])
        for name, value in _what_determines(one["labels"]).items():
            if value != theirs[name]:
                what = f"{name} is {str(value)[:40]} and {str(theirs[name])[:40]}"
                hint = f"label it like the first, and merge that: {_way_out(one['labels'], other['labels'], root)}"
                raise UsageError(f"{first} and {root} are labelled differently: {what}; {hint}")


def _way_out(wanted: Manifest, labels: Manifest, root: Path) -> str:
    """The command that labels a data set as `wanted` says."""
    words = ["figa", "relabel", str(root)]
    if wanted.get("fingerprint") != labels.get("fingerprint"):
        words += ["--tokenizer", str(wanted["tokenizer"])]
    for name in LabelSettings.model_fields:
        value = wanted.get(name) or "" if name == "system" else wanted.get(name)
        if name != "tokenizer" and wanted.get(name) != labels.get(name):
            words += ["--set", f"labels.{name}={json.dumps(value, ensure_ascii=False)}"]
    return shlex.join([*words, "--out", f"{root.resolve() if root.name in ('', '..') else root}-relabelled"])


def _what_determines(labels: dict[str, Any]) -> dict[str, Any]:
    """What determines labels, by its name in messages. Not the tokenizer's name, but its fingerprint."""
    return {
        **{f"labels.{name}": labels.get(name) for name in LabelSettings.model_fields if name != "tokenizer"},
        "the end token": labels.get("eos_id"),
        "the tokenizer's fingerprint": labels.get("fingerprint"),
        # Other versions may choose another of several alignments of the same length.
        "the version of rapidfuzz": (labels.get("libraries") or {}).get("rapidfuzz"),
    }


def content(
    inputs: list[Manifest],
    reasons: dict[str, Counter[str]],
    entries: list[dict[str, Any]],
    ledger: list[dict[str, Any]],
) -> Manifest:
    """The manifest, without `run_digest` and `lineage`. reasons: rejects by stage. Raises StorageError if a row is missing."""
    rows = account(sum(one["rows"]["read"] for one in inputs), entries, ledger)
    models = [one["models"] for one in inputs]
    settings = [one["settings"] for one in inputs]
    thresholds = [one["thresholds"] for one in inputs]
    return {
        "rows": rows,
        "funnel": _funnel(inputs, reasons, rows["read"]),
        "source": _joined([one["source"] for one in inputs]),
        "models": {role: _joined([each[role] for each in models]) for role in _common(models)},
        "thresholds": thresholds[0] if _alike(thresholds) else {},
        "labels": inputs[0]["labels"],
        "settings": {section: _shared([each[section] for each in settings]) for section in _common(settings)},
        "prompts": _texts([one.get("prompts") for one in inputs]),
        "calls": _sum([one["calls"] for one in inputs]),
        **_money(inputs),
        "files": entries,
        "rejected_files": ledger,
    }


def _funnel(inputs: list[Manifest], reasons: dict[str, Counter[str]], rows: int) -> list[dict[str, Any]]:
    """As of one run; a data set that has not gone through a stage lost nothing there."""
    notes: dict[str, list[dict[str, int]]] = {"merge": []}
    for step in (step for one in inputs for step in one["funnel"]):
        notes.setdefault(step["stage"], []).append(step.get("notes", {}))
    return funnel(rows, {stage: counts for stage, counts in reasons.items() if stage in notes}, notes)


def _money(inputs: list[Manifest]) -> dict[str, Any]:
    money = {
        "cost_usd": round(sum(one["cost_usd"] for one in inputs), 6),
        "cost_usd_by_call": _sum([one.get("cost_usd_by_call", {}) for one in inputs]),
        "cost_uncertain_usd": round(sum(one.get("cost_uncertain_usd", 0.0) for one in inputs), 6),
        "unpriced": list(dict.fromkeys(name for one in inputs for name in one.get("unpriced", ()))),
        "prices": [price for one in inputs for price in one.get("prices", ())],
    }
    return {name: value for name, value in money.items() if value or name == "cost_usd"}


def _alike(values: list[Any]) -> bool:
    return all(value == values[0] for value in values)


def _common(values: list[dict[str, Any]]) -> list[str]:
    return [name for name in values[0] if all(name in value for value in values)]


def _shared(values: list[dict[str, Any]]) -> dict[str, Any]:
    """The entries that all have."""
    return {name: values[0][name] for name in _common(values) if _alike([value[name] for value in values])}


def _sum(values: list[dict[str, Any]]) -> dict[str, Any]:
    names = sorted({name for value in values for name in value})
    return {name: round(sum(value.get(name, 0) for value in values), 6) for name in names}


def _texts(values: list[str | None]) -> str | None:
    """Different texts joined by a plus; None is none."""
    parts = [part for value in values if value is not None for part in value.split(" + ")]
    return " + ".join(dict.fromkeys(parts)) or None


def _joined(values: list[dict[str, Any]]) -> dict[str, Any]:
    """A description (of a source, of a model) of several: numbers added, texts joined, the rest where it is the same."""
    if _alike(values) and "replaced_surrogates" not in values[0]:
        return values[0]
    joined: dict[str, Any] = {}
    for name in _common(values):
        own = [value[name] for value in values]
        if name == "replaced_surrogates":
            joined[name] = sum(own)
        elif all(isinstance(value, str | None) for value in own):
            joined[name] = _texts(own)
        elif _alike(own):
            joined[name] = own[0]
    return joined
