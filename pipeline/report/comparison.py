"""Two data sets side by side: settings that differ, funnels, distributions, rows gained, lost and changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset import facts, measures
from pipeline.dataset.histogram import histogram, median
from pipeline.dataset.measures import Files, Measures
from pipeline.dataset.reader import batches, read_manifest
from pipeline.report import charts, page, sample
from pipeline.report.diffs import marked
from pipeline.report.tokens import SIDES, words

_SHOWN = 50
_TOKENIZERS = "The labels are by different tokenizers: lengths and edit distances of the two can't be compared."
_TEXTS = ["id", "messages", "initial", "revised", "reward_initial", "reward_revised", "edit_distance"]
_MEDIANS = ("reward_initial", "reward_revised", "reward_gain", "edit_distance", "initial_tokens", "revised_tokens")


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two data sets."""

    name: str
    manifest: dict[str, Any]
    files: Files
    measured: Measures


@dataclass(frozen=True, slots=True)
class Comparison:
    """settings: name and both values, of those that differ. funnel: stage or stage and
    reason, and rows of each. figures: name and both values. shared, gained, lost: rows by id; gained are the second's alone.
    changed: shared rows with another initial or revised answer, of which `examples` are some, as pairs of rows."""

    sides: tuple[Side, Side]
    settings: list[tuple[str, str, str]]
    funnel: list[tuple[str, str, str]]
    figures: list[tuple[str, str, str]]
    shared: int
    gained: list[str]
    lost: list[str]
    changed: int
    examples: list[tuple[dict[str, Any], dict[str, Any]]]

    def as_dict(self) -> dict[str, Any]:
        return {
            "settings": self.settings,
            "funnel": self.funnel,
            "figures": self.figures,
            "shared": self.shared,
            "gained": self.gained,
            "lost": self.lost,
            "changed": self.changed,
            "note": self.note,
        }

    @property
    def note(self) -> str:
        """What makes figures of the two incomparable; empty if nothing."""
        fingerprints = {side.manifest["labels"]["fingerprint"] for side in self.sides}
        return _TOKENIZERS if len(fingerprints) > 1 else ""


def compare(first: Path, second: Path) -> Comparison:
    """Read both. Memory: some 60 bytes a row of each. Raises InputError or StorageError as opening a data set does."""
    a, b = (_side(folder) for folder in (first, second))
    in_both = np.intersect1d(a.measured.ids, b.measured.ids)
    gained, lost = (np.setdiff1d(x.measured.ids, in_both) for x in (b, a))
    changed, examples = _changed(a, b, set(in_both.tolist()))
    manifests = a.manifest, b.manifest
    return Comparison(
        (a, b),
        _differing(*(_flat(_described(manifest)) for manifest in manifests)),
        _funnel(*manifests),
        [(name, _number(a, name), _number(b, name)) for name in ("rows", *_MEDIANS)]
        + [("cost", facts.cost(a.manifest), facts.cost(b.manifest))],
        len(in_both),
        [id_.decode() for id_ in gained.tolist()],
        [id_.decode() for id_ in lost.tolist()],
        changed,
        examples,
    )


def render(found: Comparison) -> str:
    """The HTML page."""
    a, b = found.sides
    drawn = []
    for title, name, unit in (
        ("Rewards of initial answers", "reward_initial", "reward"),
        ("Rewards of revised answers", "reward_revised", "reward"),
        ("Reward gain", "reward_gain", "reward of revised − reward of initial"),
        ("Edit distance", "edit_distance", "edits / tokens of the longer answer"),
        ("Length of revised answers", "revised_tokens", "tokens"),
    ):
        both = {f"1: {a.name}": a.measured.numbers[name], f"2: {b.name}": b.measured.numbers[name]}
        drawn.append(charts.distribution(title, histogram(both), unit))
    names = (a.name, b.name)
    examples = [(sample.bounded(mine), sample.bounded(theirs)) for mine, theirs in found.examples]
    return page.fill(
        "compare.html",
        title=" and ".join(names),
        names=names,
        found=found,
        examples=examples,
        charts=drawn,
        marked=by_words,
    )


def by_words(first: str, second: str) -> Iterator[tuple[str, str]]:
    """Two texts as one: "kept", "del" or "ins", and the words."""
    a, b = (words(first, second)[side] for side in SIDES)
    return marked((a.texts, a.ops), (b.texts, b.ops))


def _side(folder: Path) -> Side:
    manifest = read_manifest(folder)
    files = measures.files_of(folder, manifest)
    return Side(folder.resolve().name, manifest, files, measures.measure(files))


def _described(manifest: dict[str, Any]) -> dict[str, Any]:
    """What can make two data sets different."""
    keys = ("settings", "source", "models", "thresholds", "labels", "prompts", "version", "schema_version")
    return {key: manifest[key] for key in keys if key in manifest}


def _flat(value: Any, name: str = "") -> dict[str, str]:
    if isinstance(value, dict) and value:
        return {key: text for part, inner in value.items() for key, text in _flat(inner, f"{name}.{part}").items()}
    return {name.lstrip("."): str(value)}


def _differing(a: dict[str, str], b: dict[str, str]) -> list[tuple[str, str, str]]:
    names = sorted(a.keys() | b.keys())
    return [(name, a.get(name, "–"), b.get(name, "–")) for name in names if a.get(name) != b.get(name)]


def _funnel(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, str, str]]:
    """For each stage what it rejected, by reason, then what it passed on; rejects are negative."""
    steps = [{step["stage"]: step for step in manifest["funnel"]} for manifest in (a, b)]
    lines = [("read", f"{a['rows']['read']:,}", f"{b['rows']['read']:,}")]
    for stage in dict.fromkeys([*steps[0], *steps[1]]):
        mine, theirs = (step.get(stage, {"rejected": {}, "out": 0}) for step in steps)
        for reason in dict.fromkeys([*mine["rejected"], *theirs["rejected"]]):
            gone = [-step["rejected"].get(reason, 0) for step in (mine, theirs)]
            lines.append((f"{stage}: {reason}", f"{gone[0]:,}", f"{gone[1]:,}"))
        lines.append((stage, f"{mine['out']:,}", f"{theirs['out']:,}"))
    return lines


def _number(side: Side, name: str) -> str:
    if name == "rows":
        return f"{side.measured.rows:,}"
    value = median(side.measured.numbers[name])
    return "–" if value is None else f"{value:.3g}"


def _changed(a: Side, b: Side, shared: set[bytes]) -> tuple[int, list[tuple[dict[str, Any], dict[str, Any]]]]:
    """How many shared rows have other answers, and the ones with the smallest ids."""
    answers = dict(_answers(a, shared))
    differing = sorted(row_id for row_id, answer in _answers(b, shared) if answers[row_id] != answer)
    chosen = {row_id.decode() for row_id in differing[:_SHOWN]}
    mine, theirs = (_rows(side, chosen) for side in (a, b))
    return len(differing), [(mine[row_id], theirs[row_id]) for row_id in sorted(chosen)]


def _answers(side: Side, shared: set[bytes]) -> Iterator[tuple[bytes, int]]:
    """For each shared row a hash of its two answers: within one process equal texts have equal ones."""
    for path in side.files.published:
        for batch in batches(path, ["id", "initial", "revised"]):
            for row_id, *texts in zip(*(batch[name].to_pylist() for name in batch.schema.names), strict=True):
                if row_id.encode() in shared:
                    yield row_id.encode(), hash(tuple(texts))


def _rows(side: Side, ids: set[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    wanted = pa.array(sorted(ids), pa.string())
    for path in side.files.published:
        for batch in batches(path, _TEXTS):
            kept = batch.filter(pc.is_in(batch["id"], value_set=wanted))
            found |= {row["id"]: row for row in kept.to_pylist()}
    return found
