"""The data card: README.md of the output folder, which the Hub and `datasets.load_dataset` read as well.

No text of any row goes into it. What does come from outside (names, addresses, licences) is one line, and escaped.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from pipeline import schema
from pipeline.dataset.facts import source_name
from pipeline.text import redact_paths

_CARD = """# FIGA pairs from {source}

{published} pairs of an *initial* answer and its minimally *revised* version, with a weight for every token, made by
figa-pipeline {version} after the method FIGA (citation below). Every row that was read is published or in `rejected/`, with
stage, reason and evidence: {read} = {published} + {rejected}.

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
cross-entropy is at most {gate} nats. `*_weights` are signed: α = {alpha} on tokens that the revision brought in, γ = {gamma}
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
    "policy_model": "who gave the initial answer",
    "reviser_model": "who revised it",
    "reward_model": "who scored",
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
    """The card's Markdown, behind the YAML header that names the splits."""
    manifest = redact_paths(manifest)
    labels = manifest["labels"]
    funnel = "\n".join(
        f"| {cell(step['stage'])} | {step['in']} | {step['out']} | {_reasons(step['rejected'])} |"
        for step in manifest["funnel"]
    )
    return _header(manifest) + _CARD.format(
        source=cell(source_name(manifest)),
        version=cell(manifest["version"]),
        origin=_origin(manifest),
        funnel=funnel,
        columns="\n".join(_columns()),
        **manifest["rows"],
        # It refuses a split without rows otherwise.
        streaming="" if manifest["rows"]["published"] else ", streaming=True",
        eos=labels["alpha"] if labels.get("eos_weight") is None else labels["eos_weight"],
        tokenizer=cell(labels["tokenizer"]),
        template=cell(labels["template"]),
        system=_system(labels.get("system")),
        **{name: labels[name] for name in ("alpha", "beta", "gamma", "gate")},
    )


def _system(prompt: str | None) -> str:
    if not prompt:
        return "no system prompt is put before a query"
    return f"before queries without a system prompt stands this one: {cell(prompt)}"


def cell(value: object) -> str:
    """Text that Markdown and HTML take for nothing but text, in one line."""
    return re.sub(r"[\\`*\[\]<>|~&]", lambda found: f"&#{ord(found[0])};", _line(value)) or "–"


def _line(value: object) -> str:
    """Control and direction characters become spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())


def _header(manifest: dict[str, Any]) -> str:
    published = [{"split": "train", "path": "data/train-*.parquet"}]
    configs: list[dict[str, Any]] = [{"config_name": "default", "data_files": published, "default": True}]
    if manifest["rejected_files"]:
        configs.append({"config_name": "rejected", "data_files": [{"split": "train", "path": "rejected/*.parquet"}]})
    header: dict[str, Any] = {"pretty_name": f"FIGA pairs from {_line(source_name(manifest))}", "configs": configs}
    licence = _line(manifest["source"].get("licence") or "unknown")
    # Several sources in one run have several.
    named = [name.strip() for name in licence.lower().split(",")]
    known = _LICENCES.issuperset(named)
    header |= (
        {"license": named[0] if len(named) == 1 else named} if known else {"license": "other", "license_name": licence}
    )
    header |= {"task_categories": ["text-generation"], "tags": ["preference", "figa"]}
    return f"---\n{yaml.safe_dump(header, sort_keys=False, width=1000)}---\n\n"


def _origin(manifest: dict[str, Any]) -> str:
    source, labels = manifest["source"], manifest["labels"]
    facts = [("Source", f"{source['name']} ({_place(source)}), split {source['split']}")]
    facts.append(("Licence of the source", str(source["licence"])))
    facts += [
        ("Part", f"{part['name']} ({_place(part)}), weight {part['weight']:g}, licence {part['licence']}")
        for part in source.get("parts", [])
    ]
    names = {"policy": "Policy (initial answers)", "reviser": "Reviser", "reward": "Reward model"}
    facts += [(names.get(role, role), model["name"]) for role, model in manifest["models"].items()]
    if (check := manifest.get("reward_check")) and check["rows"]:
        correlation = check["length_correlation"]
        told = "" if correlation is None else f"; rank correlation of score and length {correlation:+.2f}"
        preferred = (
            f"prefers the reference to the initial answer in {check['prefers_reference']:.0%} of {check['rows']} rows"
        )
        facts.append(("The reward model", preferred + told))
    etas = {name: "off" if value is None else f"{value:.4g}" for name, value in manifest["thresholds"].items()}
    facts.append(("Thresholds", ", ".join(f"{name} = {value}" for name, value in etas.items())))
    facts.append(("Prompts of the reviser", f"digest {manifest.get('prompts') or 'none'}"))
    facts.append(("Tokenizer of the labels", f"{labels['tokenizer']}, fingerprint {labels['fingerprint']}"))
    facts.append(("Labels", f"signal {labels['signal']}, granularity {labels['granularity']}"))
    unknown = manifest.get("unpriced")
    extra = f", without {', '.join(unknown)} (unknown price)" if unknown else ""
    facts.append(("Paid for language models", f"{manifest['cost_usd']:.4f} US dollars{extra}"))
    for parent in manifest.get("lineage", [])[-1:]:
        if "manifest" in parent:
            facts.append(("Relabelled from", f"the data set whose manifest has the digest {parent['manifest']}"))
        for part in parent.get("merged", ()):
            pairs = f"{part['published']} of {part['rows']['published']} pairs"
            facts.append(("Merged from", f"{part['path']}: {pairs}, manifest {part['manifest']}"))
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {cell(value)} |" for name, value in facts)])


def _place(source: dict[str, Any]) -> str:
    """How a source was found; with its id on the Hub, but not where it lies on somebody's disk."""
    hub = source.get("location") if source["resolved"] == "hub" else None
    revision = f"at {source['revision']}" if source.get("revision") else None
    return " ".join(str(part) for part in (source["resolved"], hub, revision) if part)


def _columns() -> list[str]:
    lines = []
    for field in schema.PUBLISHED:
        side, _, kind = field.name.partition("_")
        meaning = _MEANINGS.get(field.name) or f"{side} answer: {_LISTS[kind]}"
        kind_ = str(field.type).replace("element: ", "").replace("item: ", "").replace("|", "")
        lines.append(f"| `{field.name}` | `{kind_}` | {meaning} |")
    return lines


def _reasons(counts: dict[str, int]) -> str:
    return ", ".join(f"{cell(reason)} {count}" for reason, count in counts.items())
