"""What a manifest says, as names and texts of one line; terminal, data card, report and Prefect's artifacts render it."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.dataset.measures import Measures, median
from pipeline.rewards import diagnostics

Fact = tuple[str, str]
Manifest = dict[str, Any]
RULES = {"eta1": "R(initial) <", "eta2": "R(reference) >", "eta3": "R(reference) − R(initial) >"}
_ROLES = {
    "policy": "Policy (initial answers)",
    "reviser": "Reviser",
    "reward": "Reward model",
    "judge": "Judge of revisions",
}
# Reasons for what was cut, with the role that wrote it; and the least share of rows that is worth a warning.
_CUT = {"truncated": ("policy", "answers"), "revision_truncated": ("reviser", "revisions")}
MANY_CUT = 0.2
# Stage and role of each kind of call, in the order of the run.
_CALLS = {
    "sample": ("sample", "policy"),
    "judge": ("score", "reward"),
    "diagnose": ("revise", "reviser"),
    "revise": ("revise", "reviser"),
    "filter": ("filter", "judge"),
}


def title(manifest: Manifest) -> str:
    """Names the source of the rows. The bundled sample stands in for a source, and has none of its rows."""
    source = manifest["source"]
    name, resolved = source.get("name", "unknown source"), source.get("resolved")
    shipped = {"bundled-sample": "the bundled sample in place of ", "bundled": "the bundled "}
    return f"FIGA pairs from {shipped.get(resolved, '')}{name}"


def headline(manifest: Manifest) -> str:
    rows, policy = manifest["rows"], manifest.get("settings", {}).get("policy", {})
    samples, first = policy.get("samples", 1), manifest["funnel"][0] if manifest["funnel"] else {}
    if samples > 1 and first.get("stage") == "source":
        # A query that the source's checks reject is one row, any other as many as it has answers.
        queries = sum(first["rejected"].values()) + first["out"] // samples
        return f"{queries:,} queries, {samples} answers each: {rows['read']:,} rows = {_split(rows)}"
    return f"{rows['read']:,} read = {_split(rows)}"


def _split(rows: dict[str, int]) -> str:
    return f"{rows['published']:,} published + {rows['rejected']:,} rejected"


def counts(values: dict[str, int]) -> str:
    """The reasons of a stage's rejects, or its notes, each with its number of rows."""
    return ", ".join(f"{count} {name}" for name, count in values.items())


def warnings(manifest: Manifest) -> list[str]:
    """What the owner of the run should know."""
    lines = diagnostics.warnings(manifest)
    lines += [
        f"{model} billed {times:g} times the tokens that a call allowed it: the cap counts its calls as so many times dearer"
        for model, times in manifest.get("billed_above_limits", {}).items()
    ]
    lines += _too_long(manifest)
    if not manifest["rows"]["published"]:
        lines.append("no pair survived: the data set is valid and empty; the table says which stage to loosen")
    return lines


def _too_long(manifest: Manifest) -> Iterator[str]:
    for step in manifest["funnel"]:
        for reason, (role, what) in _CUT.items():
            share = step["rejected"].get(reason, 0) / max(1, step["in"])
            if share >= MANY_CUT:
                limit = manifest["settings"][role]["max_tokens"]
                yield f"{share:.0%} of the {what} were longer than {role}.max_tokens={limit} and rejected: raise it"


def gate(manifest: Manifest, share: float | None) -> str:
    """What share of the negative tokens the gate passes at the start of training; empty where it isn't known."""
    if share is None:
        return ""
    return f"at the start of training the gate of {manifest['labels']['gate']} nats passes {share:.0%} of the negative tokens"


def tiles(manifest: Manifest, measured: Measures) -> list[Fact]:
    """The figures to look at first."""
    published, read = manifest["rows"]["published"], manifest["rows"]["read"]
    survived = f"{published / read if read else 0.0:.0%}"
    facts = [("pairs published", f"{published:,}"), ("of rows read", f"{read:,}"), ("survived", survived)]
    gains = measured.numbers["reward_gain"]
    gain, distance = median(gains), median(measured.numbers["edit_distance"])
    if gain is not None:
        facts.append(("median reward gain", f"{gain:+.2f}"))
        least = accepted_gain(manifest)[0]
        if least is None or least < 0:  # With a gate all are better, by definition.
            facts.append(("revisions scored better", f"{float(np.mean(gains[np.isfinite(gains)] > 0)):.0%}"))
    if distance is not None:
        facts.append(("median edit distance", f"{distance:.2f}"))
    return [*facts, ("paid for models", cost(manifest))]


def cost(manifest: Manifest) -> str:
    """US dollars in short, with what is not known about them."""
    paid, uncertain = manifest.get("cost_usd", 0.0), manifest.get("cost_uncertain_usd")
    if manifest.get("unpriced"):
        return f"${paid:,.2f} + unknown" if paid else "unknown"
    return f"${paid:,.2f}" + (f" to {paid + uncertain:,.2f}" if uncertain else "")


def spent(manifest: Manifest) -> list[str]:
    """US dollars spent in the folder, and what is not known about them; empty when nothing was."""
    paid, uncertain, unpriced = (manifest.get(name) for name in ("cost_usd", "cost_uncertain_usd", "unpriced"))
    lines = [f"${paid:.4f} spent in this folder"] if paid else []
    if uncertain:
        lines.append(f"up to ${uncertain:.4f} more for calls that ended without an answer")
    if unpriced:
        lines.append(
            f"cost of {', '.join(unpriced)} unknown (no price: set policy.price, reviser.price or reward.price)"
        )
    return lines


def calls(manifest: Manifest) -> list[tuple[str, str, str, str]]:
    """Stage, call, number of answers, US dollars: "–" where the manifest doesn't say, "unknown" without a price."""
    paid, unpriced = manifest.get("cost_usd_by_call") or {}, set(manifest.get("unpriced") or ())
    # A judge's name ends in its kind and template.
    models = {role: {str(model["name"]).partition("#")[0]} for role, model in manifest["models"].items()}
    # Several judges have one name together, so the unpriced names of no other role are theirs.
    others = {name for role in ("policy", "reviser", "judge") for name in models.get(role, ())}
    models["reward"] = models.get("reward", set()) | (unpriced - others)
    counted = manifest.get("calls") or {}
    lines = []
    for name in [*(call for call in _CALLS if call in counted), *(call for call in counted if call not in _CALLS)]:
        stage, role = _CALLS.get(name, (name, ""))
        dollars = f"${paid[name]:,.4f}" if name in paid else "–"
        if not paid.get(name) and models.get(role, set()) & unpriced:
            dollars = "unknown"
        lines.append((stage, name, f"{counted[name]:,}", dollars))
    return lines


def origin(manifest: Manifest) -> list[Fact]:
    """What the data set was made from, by which models, with which labels, and at what cost."""
    source = manifest["source"]
    labels = manifest["labels"]
    thresholds = (manifest.get("thresholds") or {}).items()
    rules = [f"{RULES.get(name, name)} {value:.4g}" for name, value in thresholds if value is not None]
    prompts = [("Prompts of the reviser", f"digest {manifest['prompts']}")] if manifest.get("prompts") else []
    weights = "α = {alpha}, β = {beta}, γ = {gamma}".format_map(labels)
    return [
        ("Source", _source(source)),
        *([("The pairs", source["note"])] if source.get("note") else ()),
        *((f"Part, weight {part['weight']:g}", _source(part)) for part in source.get("parts", ())),
        *((_ROLES.get(role, role), str(model["name"])) for role, model in manifest["models"].items()),
        *_reward_check(manifest),
        ("Selected rows", ", ".join(rules) or "of any score"),
        *prompts,
        ("Tokenizer of the labels", f"{labels['tokenizer']}, fingerprint {labels['fingerprint']}"),
        ("Labels", f"signal {labels['signal']}, granularity {labels['granularity']}, {weights}"),
        ("Paid for models", ", ".join(spent(manifest)) or "nothing"),
        *review(manifest.get("review")),
        *_lineage(manifest),
        ("Written by", f"figa-pipeline {manifest['version']}, schema {manifest['schema_version']}"),
    ]


def _source(source: dict[str, Any]) -> str:
    """A source by name, how it was resolved, split and licence. Only a location on the Hub is public."""
    location = source.get("location") if source.get("resolved") == "hub" else None
    place = [source.get("resolved"), location, f"at {source['revision']}" if source.get("revision") else None]
    text = f"{source.get('name', 'unknown source')} ({' '.join(str(part) for part in place if part)})"
    return ", ".join([text, *(f"{name} {source[name]}" for name in ("split", "licence") if source.get(name))])


def _reward_check(manifest: Manifest) -> list[Fact]:
    check = manifest.get("reward_check")
    if not check or not check["rows"]:
        return []
    text = f"prefers the reference to the initial answer in {check['prefers_reference']:.0%} of {check['rows']} rows"
    if check["length_correlation"] is not None:
        text += f"; rank correlation of score and length {check['length_correlation']:+.2f}"
    return [("The reward model", text)]


def review(review: dict[str, Any] | None) -> list[Fact]:
    if not review:
        return []
    counted = ", ".join(f"{review[name]} {name}" for name in ("keep", "drop", "edit", "undecided"))
    return [("Reviewed", f"by {', '.join(review['reviewers'])}: {counted}; decisions {review['decisions'][:16]}")]


def _lineage(manifest: Manifest) -> list[Fact]:
    facts = []
    for parent in manifest.get("lineage", [])[-1:]:
        if "manifest" in parent:
            made = "Reviewed from" if "review" in parent else "Relabelled from"
            facts.append((made, f"the data set whose manifest has the digest {parent['manifest']}"))
        for part in parent.get("merged", ()):
            pairs = f"{part['published']} of {part['rows']['published']} pairs"
            facts.append(("Merged from", f"{part['path']}: {pairs}, manifest {part['manifest']}"))
    return facts


def accepted_gain(manifest: Manifest) -> tuple[float | None, str]:
    """The reward gain from which on revisions are accepted, None where it is not known; and what to say of it."""
    settings = manifest.get("settings", {}).get("filter")
    if not settings or manifest["models"].get("reward", {}).get("name") in (None, "none"):
        return None, "By the reward model."
    least = settings.get("min_reward_gain")
    if least is None and manifest["settings"].get("source", {}).get("enters_at") == "score":
        return None, "By the reward model. No gate: pre-made pairs are accepted at any gain."
    least = float(least or 0.0)
    return least, f"By the reward model. Accepted: from {least:g} on."


def accepted_distance(manifest: Manifest) -> tuple[tuple[float, float] | None, str]:
    """Edit distances that are accepted, above the first and up to the second; and what to say of them."""
    settings = manifest.get("settings", {}).get("filter", {})
    least, most = settings.get("min_distance"), settings.get("max_distance")
    if least is None or most is None:
        return None, "Token edits, as share of the longer answer."
    return (float(least), float(most)), (f"Accepted: above {least:g}, up to {most:g}. Revisions outside were rejected.")
