"""The data card: README.md of the output folder, which the Hub and `datasets.load_dataset` read as well.

No text of any row goes into it. Names, addresses and licences are one line, and escaped.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from pipeline.dataset import facts
from pipeline.text import redact_paths

# What the Hub accepts as `license`; anything else is `other`, with its name beside it.
_LICENCES = frozenset("apache-2.0 mit cc-by-4.0 cc-by-sa-4.0 cc-by-nc-4.0 cc0-1.0 odc-by bsd-3-clause unknown".split())

# Languages of the queries, by source, where they are known.
_LANGUAGES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("hh-rlhf", "shp", "openorca", "alpaca", "ultrafeedback", "spa", "synthetic-gptj"), ("en",)),
    "demo": ("en", "es", "zh", "de", "fr", "it", "ja"),
}
_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}


def render(manifest: dict[str, Any]) -> str:
    """The card's Markdown, after the YAML header that names the splits."""
    manifest = redact_paths(manifest)
    labels, rows = manifest["labels"], manifest["rows"]
    origin = [f"| {cell(name)} | {cell(value)} |" for name, value in facts.origin(manifest)]
    funnel = [
        f"| {cell(step['stage'])} | {step['in']} | {step['out']} | {cell(facts.counts(step['rejected']))} |"
        for step in manifest["funnel"]
    ]
    system = "no system prompt is put before a query"
    if labels.get("system"):
        system = f"before queries without a system prompt stands this one: {cell(labels['system'])}"
    card = Path(__file__).with_suffix(".md").read_text("utf-8")
    return _header(manifest) + card.format(
        title=cell(facts.title(manifest)),
        headline=facts.headline(manifest),
        published=rows["published"],
        version=cell(manifest["version"]),
        origin="\n".join(["| | |", "|---|---|", *origin]),
        funnel="\n".join(funnel),
        # `datasets` refuses a split without rows otherwise.
        streaming="" if rows["published"] else ", streaming=True",
        eos=labels["alpha"] if labels.get("eos_weight") is None else labels["eos_weight"],
        tokenizer=cell(labels["tokenizer"]),
        template=cell(labels["template"]),
        system=system,
        **{name: labels[name] for name in ("alpha", "beta", "gamma", "gate")},
    )


def cell(value: object) -> str:
    """Text that Markdown and HTML read as nothing but text, in one line."""
    return re.sub(r"[\\`*\[\]<>|~&]", lambda match: f"&#{ord(match[0])};", _line(value)) or "–"


def _line(value: object) -> str:
    """Control and direction characters become spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())


def _header(manifest: dict[str, Any]) -> str:
    splits = {"default": "data/train-*.parquet"}
    if manifest["rejected_files"]:
        splits["rejected"] = "rejected/*.parquet"
    configs: list[dict[str, Any]] = [
        {"config_name": name, "data_files": [{"split": "train", "path": path}]} for name, path in splits.items()
    ]
    configs[0]["default"] = True
    header: dict[str, Any] = {"pretty_name": _line(facts.title(manifest)), "configs": configs}
    licence = _line(manifest["source"].get("licence") or "unknown")
    # Several sources in one run have several.
    names = [name.strip() for name in licence.lower().split(",")]
    if _LICENCES.issuperset(names):
        header["license"] = names[0] if len(names) == 1 else names
    else:
        header |= {"license": "other", "license_name": licence}
    if languages := _languages(manifest):
        header["language"] = languages
    rows = manifest["rows"]["published"]
    header["size_categories"] = [next((size for most, size in _SIZES.items() if rows < most), "10M<n<100M")]
    sources = [_line(part["location"]) for part in _parts(manifest) if part.get("resolved") == "hub"]
    header["source_datasets"] = sources or ["original"]
    header |= {"task_categories": ["text-generation"], "tags": ["preference", "figa", "synthetic"]}
    return f"---\n{yaml.safe_dump(header, sort_keys=False, width=1000)}---\n\n"


def _parts(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The source, or the several of a mix."""
    return manifest["source"].get("parts") or [manifest["source"]]


def _languages(manifest: dict[str, Any]) -> list[str]:
    """Those that the run asked for, else those of the sources; none where one is not known."""
    if chosen := manifest.get("settings", {}).get("source", {}).get("languages"):
        return list(chosen)
    known = [_LANGUAGES.get(str(part.get("name"))) for part in _parts(manifest)]
    return sorted({language for languages in known if languages for language in languages}) if all(known) else []
