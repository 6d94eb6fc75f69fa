"""What the manifest of a merged data set says: what its parts have in common, and the sums of what can be added.

Sees manifests only, neither files nor rows. What differs (sources, models, thresholds) is in `lineage`, per part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline import __version__, schema
from pipeline.config.settings import LabelSettings
from pipeline.errors import StorageError, UsageError

Manifest = dict[str, Any]


def check_same(inputs: Sequence[tuple[Path, Manifest]]) -> None:
    """Raises UsageError naming the first thing in which schema or labels of two data sets differ."""
    (first, one), *others = inputs
    if one["schema_version"] != schema.SCHEMA_VERSION:
        others.insert(0, (first, one))
    for root, other in others:
        if other["schema_version"] != schema.SCHEMA_VERSION:
            raise UsageError(
                f"{root}: has schema version {other['schema_version']}, and this program writes {schema.SCHEMA_VERSION}; "
                f"`figa relabel {root} --out DIR` publishes its rows in it"
            )
        for name, mine, theirs in _labels(one["labels"], other["labels"]):
            raise UsageError(
                f"{first} and {root} are labelled differently: {name} is {mine} and {theirs}; `figa relabel` "
                "labels one of them like the other"
            )


def _labels(one: Manifest, other: Manifest) -> Iterable[tuple[str, Any, Any]]:
    """Differences in what determines labels, as (name, one, other). Not the tokenizer's name, but its fingerprint."""
    named = {f"labels.{name}": name for name in LabelSettings.model_fields if name != "tokenizer"}
    for shown, name in (named | {"the end token": "eos_id", "the tokenizer's fingerprint": "fingerprint"}).items():
        if one.get(name) != other.get(name):
            yield shown, str(one.get(name))[:40], str(other.get(name))[:40]
    # Other versions may choose another of several alignments of the same length.
    mine, theirs = ((labels.get("libraries") or {}).get("rapidfuzz") for labels in (one, other))
    if mine != theirs:
        yield "the version of rapidfuzz", mine, theirs


def content(
    inputs: list[Manifest],
    reasons: dict[str, Counter[str]],
    entries: list[dict[str, Any]],
    ledger: list[dict[str, Any]],
) -> Manifest:
    """The manifest, without `run_digest` and `lineage`. reasons: rejects by stage. Raises StorageError if a row is missing."""
    read = sum(one["rows"]["read"] for one in inputs)
    kept, lost = (sum(entry["rows"] for entry in files) for files in (entries, ledger))
    if read != kept + lost:
        raise StorageError(f"{read} rows were read, but {kept} + {lost} were written: a data set changed meanwhile")
    return {
        "format": "figa-pipeline",
        "version": __version__,
        "schema_version": schema.SCHEMA_VERSION,
        "rows": {"read": read, "published": kept, "rejected": lost},
        "funnel": _funnel(inputs, reasons, read),
        "source": _joined([one["source"] for one in inputs]),
        "models": {
            role: _joined([one["models"][role] for one in inputs]) for role in _common([m["models"] for m in inputs])
        },
        "thresholds": inputs[0]["thresholds"] if _alike([one["thresholds"] for one in inputs]) else {},
        "labels": inputs[0]["labels"],
        "settings": _shared([one["settings"] for one in inputs]),
        "prompts": _texts([one.get("prompts") for one in inputs]),
        "calls": _sum([one["calls"] for one in inputs]),
        **_money(inputs),
        "files": entries,
        "rejected_files": ledger,
    }


def _funnel(inputs: list[Manifest], reasons: dict[str, Counter[str]], rows: int) -> list[dict[str, Any]]:
    """As of one run; a data set that has not gone through a stage lost nothing there."""
    steps = [step for one in inputs for step in one["funnel"]]
    funnel = []
    for stage, counts in reasons.items():
        if stage != "merge" and all(step["stage"] != stage for step in steps):
            continue
        notes = _sum([step.get("notes", {}) for step in steps if step["stage"] == stage])
        ordered = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
        funnel.append({"stage": stage, "in": rows, "out": rows - counts.total(), "rejected": ordered})
        funnel[-1] |= {"notes": notes} if notes else {}
        rows -= counts.total()
    return funnel


def _money(inputs: list[Manifest]) -> dict[str, Any]:
    money = {
        "cost_usd": round(sum(one["cost_usd"] for one in inputs), 6),
        "cost_usd_by_call": _sum([one.get("cost_usd_by_call", {}) for one in inputs]),
        "cost_uncertain_usd": round(sum(one.get("cost_uncertain_usd", 0.0) for one in inputs), 6),
        "unpriced": list(dict.fromkeys(name for one in inputs for name in one.get("unpriced", ()))),
    }
    return {name: value for name, value in money.items() if value or name == "cost_usd"}


def _alike(values: list[Any]) -> bool:
    return all(value == values[0] for value in values)


def _common(values: list[dict[str, Any]]) -> list[str]:
    return [name for name in values[0] if all(name in value for value in values)]


def _sum(values: list[dict[str, Any]]) -> dict[str, Any]:
    names = sorted({name for value in values for name in value})
    return {name: round(sum(value.get(name, 0) for value in values), 6) for name in names}


def _texts(values: list[Any]) -> str | None:
    """Different texts joined by a plus; None is none."""
    parts = [part for value in values if value is not None for part in str(value).split(" + ")]
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


def _shared(settings: list[dict[str, Any]]) -> dict[str, Any]:
    """The settings that all have, where they are the same."""
    sections = {name: [value[name] for value in settings] for name in _common(settings)}
    return {
        name: {key: own[0][key] for key in _common(own) if _alike([value[key] for value in own])}
        for name, own in sections.items()
    }
