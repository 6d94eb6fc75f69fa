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
    header |= {"task_categories": ["text-generation"], "tags": ["preference", "figa"]}
    return f"---\n{yaml.safe_dump(header, sort_keys=False, width=1000)}---\n\n"
