"""The data card: README.md of the output folder, which the Hub and `datasets.load_dataset` read as well.

No text of any row goes into it. What does come from outside (names, addresses, licences) is one line, and escaped.
"""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import yaml

from pipeline import schema
from pipeline.dataset import facts
from pipeline.text import redact_paths

_CARD = """# {title}

{published} pairs of an *initial* answer and its minimally *revised* version, with a weight for every token, created
by figa-pipeline {version} after the method FIGA (citation below). Every row that was read is published or in `rejected/`,
with stage, reason and evidence: {headline}.

```python
import datasets

pairs = datasets.load_dataset("PATH_OR_HUB_ID"{streaming})["train"]
```

## What it was made from

{origin}

## Where the rows went

| stage | in | out | rejected |
|---|---:|---:|---|
{funnel}

## Columns

| column | type | meaning |
|---|---|---|
{columns}

Sequences are in tokens of {tokenizer}, as the template `{template}` writes them; {system}.

## Loss contract

The loss of one pair is Σ w·CE over the revised sequence plus Σ w·CE over the initial one (its weights are negative:
unlikelihood), divided by the number of terms that count: those with a non-zero weight, a negative one only while its
cross-entropy is at most {gate} nats. `*_weights` are signed: α = {alpha} on tokens that the revision added, γ = {gamma}
on those it kept, −β = −{beta} on tokens of the initial answer that it took out, 0 elsewhere; the token that ends the
revised answer carries {eos}. A trainer that divides by the *sum* of the weights, or drops unknown columns, computes
something else.

## Limits

Texts are the source's and the models' own, unfiltered but for the stages above; they may be wrong, biased or offensive. A
reward model decided which rows are here: its blind spots are the data's. Revisions by small models copy the reference more
than the method intends. The licence above is the source's; that of the models' answers depends on the models.

## Citation

```bibtex
@inproceedings{{guo2024beyond,
  title = {{Beyond Imitation: Leveraging Fine-grained Quality Signals for Alignment}},
  author = {{Guo, Geyang and Zhao, Ranchi and Tang, Tianyi and Zhao, Wayne Xin and Wen, Ji-Rong}},
  booktitle = {{International Conference on Learning Representations}},
  year = {{2024}},
  note = {{arXiv:2311.04072}}
}}
```
"""
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
    return _header(manifest) + _CARD.format(
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
