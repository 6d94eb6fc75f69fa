"""The data card: README.md of the output folder, which the Hub and `datasets.load_dataset` read as well.

No text of any row goes into it. What does come from outside (names, addresses, licences) is one line, and escaped.
"""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from pipeline import schema
from pipeline.dataset import facts
from pipeline.text import redact_paths

_MEANINGS = {
    "id": "hash of source, split, query and sample index; unique",
    "sample_index": "which sample of the policy, from 0",
    "policy_model": "model of the initial answer",
    "reviser_model": "model that revised it",
    "reward_model": "model that scored",
    "source": "data set that the row came from",
    "split": "its split",
    "source_row": "its row",
    "messages": "the query X, ends with a user turn",
    "reference": "the source's answer Y",
    "initial": "the policy's answer Ŷ",
    "revised": "the revised answer Ỹ",
    "diagnosis": "why the initial answer was poor",
    "reward_reference": "R(X, Y)",
    "reward_initial": "R(X, Ŷ)",
    "reward_revised": "R(X, Ỹ)",
    "edit_distance": "token edits / tokens of the longer answer",
    "prompt_input_ids": "the rendered query",
    "overlong": "longer than labels.max_length",
}
_LISTS = {
    "input_ids": "whole sequence: prompt, response, EOS",
    "labels": "the ids, −100 on the prompt",
    "weights": "signed weight of each token",
    "ops": "0 keep, 1 insert, 2 substitute, 3 delete, −1 prompt",
}
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
        columns="\n".join(_column(field) for field in schema.PUBLISHED),
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
    header: dict[str, Any] = {
        "pretty_name": _line(facts.title(manifest)),
        "configs": [
            {"config_name": name, "data_files": [{"split": "train", "path": path}]} for name, path in splits.items()
        ],
    }
    header["configs"][0]["default"] = True
    licence = _line(manifest["source"].get("licence") or "unknown")
    # Several sources in one run have several.
    names = [name.strip() for name in licence.lower().split(",")]
    if _LICENCES.issuperset(names):
        header["license"] = names[0] if len(names) == 1 else names
    else:
        header |= {"license": "other", "license_name": licence}
    header |= {"task_categories": ["text-generation"], "tags": ["preference", "figa"]}
    return f"---\n{yaml.safe_dump(header, sort_keys=False, width=1000)}---\n\n"


def _column(field: pa.Field) -> str:
    side, _, kind = field.name.partition("_")
    meaning = _MEANINGS.get(field.name) or f"{side} answer: {_LISTS[kind]}"
    type_ = str(field.type).replace("element: ", "").replace("item: ", "").replace("|", "")
    return f"| `{field.name}` | `{type_}` | {meaning} |"
