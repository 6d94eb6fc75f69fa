"""Two data sets side by side: settings that differ, funnels, distributions, rows gained, lost and changed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset import facts, measures
from pipeline.dataset.measures import Files, Measures, histogram, median
from pipeline.dataset.reader import batches, read_manifest
from pipeline.report import charts, page, sample
from pipeline.report.diffs import diff, words

_EXAMPLES = 50
_TOKENIZERS = "The labels are by different tokenizers: lengths and edit distances of the two can't be compared."
_EXAMPLE_COLUMNS = ["id", "messages", "initial", "revised", "reward_initial", "reward_revised", "edit_distance"]
_COMPARED = ("settings", "source", "models", "thresholds", "labels", "prompts", "version", "schema_version")
_MEDIANS = ("reward_initial", "reward_revised", "reward_gain", "edit_distance", "initial_tokens", "revised_tokens")
_CHARTS = (
    ("Rewards of initial answers", "reward_initial", "reward"),
    ("Rewards of revised answers", "reward_revised", "reward"),
    ("Reward gain", "reward_gain", "reward of revised − reward of initial"),
    ("Edit distance", "edit_distance", "edits / tokens of the longer answer"),
    ("Length of revised answers", "revised_tokens", "tokens"),
)
_JSON = ("settings", "funnel", "figures", "shared", "gained", "lost", "changed", "note")
Row = dict[str, Any]
# A name, and the value of each data set.
Values = tuple[str, str, str]


class Side(NamedTuple):
    """One of the two data sets."""

    name: str
    manifest: dict[str, Any]
    files: Files
    measured: Measures


class Comparison(NamedTuple):
    """Two data sets side by side."""

    sides: tuple[Side, Side]
    settings: list[Values]  # those that differ
    funnel: list[Values]  # rows per stage, and per stage and reason
    figures: list[Values]  # medians and cost
    shared: int  # rows in both
    gained: list[str]  # ids in the second alone
    lost: list[str]  # ids in the first alone
    changed: int  # shared rows with another initial or revised answer
    examples: list[tuple[Row, Row]]  # some of these

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _JSON}

    @property
    def note(self) -> str:
        """What makes figures of the two incomparable; empty if nothing."""
        # Another template or system prompt makes another fingerprint, but counts tokens alike.
        labels = [side.manifest["labels"] for side in self.sides]
        named = {(one.get("identity") or {}).get("tokenizer", one["fingerprint"]) for one in labels}
        return _TOKENIZERS if len(named) > 1 else ""


def compare(first: Path, second: Path) -> Comparison:
    """Read both. Memory: some 60 bytes per row of each. Raises InputError or StorageError as opening a data set does."""
    a, b = sides = _side(first), _side(second)
    shared = np.intersect1d(a.measured.ids, b.measured.ids)
    gained, lost = (np.setdiff1d(side.measured.ids, shared).tolist() for side in (b, a))
    changed, examples = _changed(a, b, set(shared.tolist()))
    return Comparison(
        sides=sides,
        settings=_differing(a.manifest, b.manifest),
        funnel=_funnel(a.manifest, b.manifest),
        figures=[
            ("rows", f"{a.measured.rows:,}", f"{b.measured.rows:,}"),
            *((name, _median(a, name), _median(b, name)) for name in _MEDIANS),
            ("cost", facts.cost(a.manifest), facts.cost(b.manifest)),
        ],
        shared=len(shared),
        gained=[id_.decode() for id_ in gained],
        lost=[id_.decode() for id_ in lost],
        changed=changed,
        examples=examples,
    )


def render(comparison: Comparison) -> str:
    """The HTML page."""
    a, b = comparison.sides
    drawn = []
    for title, name, unit in _CHARTS:
        both = {f"1: {a.name}": a.measured.numbers[name], f"2: {b.name}": b.measured.numbers[name]}
        drawn.append(charts.distribution(title, histogram(both), unit))
    return page.fill(
        "compare.html",
        title=f"{a.name} and {b.name}",
        names=(a.name, b.name),
        comparison=comparison,
        examples=[(sample.bounded(mine), sample.bounded(theirs)) for mine, theirs in comparison.examples],
        charts=drawn,
        diff=lambda before, after: diff(*words(before, after)),
    )


def _side(folder: Path) -> Side:
    manifest = read_manifest(folder)
    files = measures.files_of(folder, manifest)
    return Side(folder.resolve().name, manifest, files, measures.measure(files))


def _flat(value: Any, name: str = "") -> dict[str, str]:
    if isinstance(value, dict) and value:
        return {key: text for part, inner in value.items() for key, text in _flat(inner, f"{name}.{part}").items()}
    return {name.lstrip("."): str(value)}


def _differing(*manifests: dict[str, Any]) -> list[Values]:
    """What makes two data sets different, by dotted name."""
    a, b = (_flat({key: one[key] for key in _COMPARED if key in one}) for one in manifests)
    names = sorted(a.keys() | b.keys())
    return [(name, a.get(name, "–"), b.get(name, "–")) for name in names if a.get(name) != b.get(name)]


def _funnel(a: dict[str, Any], b: dict[str, Any]) -> list[Values]:
    """For each stage what it rejected, by reason, as negative numbers, then what it passed on."""
    steps = [{step["stage"]: step for step in manifest["funnel"]} for manifest in (a, b)]
    lines = [("read", f"{a['rows']['read']:,}", f"{b['rows']['read']:,}")]
    for stage in dict.fromkeys([*steps[0], *steps[1]]):
        mine, theirs = (step.get(stage, {"rejected": {}, "out": 0}) for step in steps)
        for reason in dict.fromkeys([*mine["rejected"], *theirs["rejected"]]):
            rejected = [-step["rejected"].get(reason, 0) for step in (mine, theirs)]
            lines.append((f"{stage}: {reason}", f"{rejected[0]:,}", f"{rejected[1]:,}"))
        lines.append((stage, f"{mine['out']:,}", f"{theirs['out']:,}"))
    return lines


def _median(side: Side, name: str) -> str:
    value = median(side.measured.numbers[name])
    return "–" if value is None else f"{value:.3g}"


def _changed(a: Side, b: Side, shared: set[bytes]) -> tuple[int, list[tuple[Row, Row]]]:
    """How many shared rows have other answers, and the ones with the smallest ids."""
    answers = dict(_answers(a, shared))
    changed = sorted(row_id for row_id, answer in _answers(b, shared) if answers[row_id] != answer)
    chosen = [row_id.decode() for row_id in changed[:_EXAMPLES]]
    mine, theirs = (_rows(side, chosen) for side in (a, b))
    return len(changed), [(mine[row_id], theirs[row_id]) for row_id in chosen]


def _answers(side: Side, shared: set[bytes]) -> Iterator[tuple[bytes, int]]:
    """For each shared row a hash of its two answers: within one process equal texts have equal ones."""
    for path in side.files.published:
        for batch in batches(path, ["id", "initial", "revised"]):
            for row in batch.to_pylist():
                if (row_id := row["id"].encode()) in shared:
                    yield row_id, hash((row["initial"], row["revised"]))


def _rows(side: Side, ids: list[str]) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for path in side.files.published:
        for batch in batches(path, _EXAMPLE_COLUMNS):
            chosen = batch.filter(pc.is_in(batch["id"], value_set=pa.array(ids, pa.string())))
            rows |= {row["id"]: row for row in chosen.to_pylist()}
    return rows
