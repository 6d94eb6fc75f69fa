"""The data card: README.md of the output folder, which the Hub and `datasets.load_dataset` read as well."""

from __future__ import annotations

from typing import Any

_TEMPLATE = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
task_categories:
- text-generation
tags:
- preference
- figa
---

# FIGA pairs from {source}

{published} pairs of an *initial* answer and its minimally *revised* version, with a weight for every token, made by
figa-pipeline {version} after Guo et al., *Beyond Imitation: Leveraging Fine-grained Quality Signals for Alignment*
(ICLR 2024, arXiv 2311.04072).

| | |
|---|---|
| Source | {source} ({resolved}{revision}), split {split}, licence {licence} |
| Policy (initial answers) | {policy} |
| Reward model | {reward} |
| Reviser | {reviser} |
| Thresholds | η1 = {eta1}, η2 = {eta2}, η3 = {eta3} |
| Tokenizer of the labels | {tokenizer}, fingerprint `{fingerprint}` |
| Labels | signal {signal}, granularity {granularity}, α = {alpha}, β = {beta}, γ = {gamma} |
| Paid for language models | ${cost:.4f}{unpriced} |
{lineage}
## Where the rows went

| stage | in | out | rejected |
|---|---:|---:|---|
{funnel}

Every row read is published or in `rejected/`, with stage, reason and evidence: {read} = {published} + {rejected}.

## Use

`revised_input_ids` and `initial_input_ids` are whole sequences: prompt, response, EOS. `*_labels` are −100 on the prompt.
`*_weights` are signed: {alpha} on tokens that the revision brought in, {gamma} on those it kept, −{beta} on tokens of the
initial answer that it took out, 0 elsewhere. The loss of one pair is Σ w·CE over the revised sequence plus Σ w·CE over the
initial one (its weights are negative: unlikelihood), divided by the number of tokens with a non-zero weight; a negative
term counts only while the cross-entropy is at most {gate} nats. A trainer that divides by the *sum* of the weights, or drops
unknown columns, computes something else.

## Limits

Texts are the source's and the models' own, unfiltered but for the stages above. A reward model decided which rows are here:
its blind spots are the data's. Revisions by small models copy the reference more than the method intends.
"""


def render(manifest: dict[str, Any]) -> str:
    """The card's Markdown. Names from settings are single-line; no text of any row goes into it."""
    source, models, labels = manifest["source"], manifest["models"], manifest["labels"]
    funnel = "\n".join(
        f"| {step['stage']} | {step['in']} | {step['out']} | {_reasons(step['rejected'])} |"
        for step in manifest["funnel"]
    )
    return _TEMPLATE.format(
        source=source["name"],
        resolved=source["resolved"],
        revision=f" at {source['revision']}" if source["revision"] else "",
        split=source["split"],
        licence=source["licence"],
        version=manifest["version"],
        policy=models["policy"]["name"],
        reward=models["reward"]["name"],
        reviser=models["reviser"]["name"],
        cost=manifest["cost_usd"],
        unpriced=f", without {', '.join(manifest['unpriced'])} (unknown price)" if manifest.get("unpriced") else "",
        funnel=funnel,
        lineage="".join(
            f"| Relabelled from | the data set whose manifest has the digest `{parent['manifest']}` |\n"
            for parent in manifest.get("lineage", [])[-1:]
        ),
        **manifest["thresholds"],
        **manifest["rows"],
        **{
            k: labels[k]
            for k in ("tokenizer", "fingerprint", "signal", "granularity", "alpha", "beta", "gamma", "gate")
        },
    )


def _reasons(counts: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in counts.items())
