"""Which rows the viewer shows, the best pairs first.

Ids are hashes, so the rows with the smallest ids are a fair sample, the same every time. Strata (diagnoses; for rejects,
stage and reason) are filled in turns: rare ones are shown whole, common ones share the rest.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.dataset.best import best_first, rows_at
from pipeline.dataset.measures import Files, Measures
from pipeline.labels.alignment import KEEP
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.report.diffs import SIDES, Token, answers
from pipeline.text import one_line

MOST_PAIRS, MOST_REJECTS = 2000, 500
_PAIR_BYTES, _REJECT_BYTES = 5_500_000, 1_500_000  # of JSON
_TEXT = 20_000  # characters
_TOKENS, _CONTEXT = 4000, 200
_EXAMPLES = 3  # for each reason
# The evidence of a reject that missed a threshold: the limit's name, and that of the value that it is compared with.
_LIMITS = {
    "eta1": "reward_initial",
    "eta2": "reward_reference",
    "eta3": "difference",
    "at_least": "",
    "above": "edit_distance",
    "at_most": "edit_distance",
}
_PAIR_FIELDS = ("id", "source", "source_row", "reference", "diagnosis", "critique")
_REJECT_FIELDS = ("id", "source", "stage", "reason", "evidence", "reference", "initial", "revised", "diagnosis")
_NUMBERS = ("reward_reference", "reward_initial", "reward_revised", "edit_distance")
_TOKEN_COLUMNS = [f"{side}_{kind}" for side in SIDES for kind in ("input_ids", "weights", "ops")]
_PAIR_COLUMNS = [*_PAIR_FIELDS, *_NUMBERS, "messages", *SIDES, *_TOKEN_COLUMNS]
Row = dict[str, Any]
Vocabulary = dict[tuple[int | None, str], int]


@dataclass(slots=True)
class Shown:
    """What the viewer holds. vocabulary: (id, text) of every token, with the position by which pairs refer to it."""

    pairs_of: int  # how many the data set has
    rejects_of: int
    pairs: list[Row] = field(default_factory=list)
    rejects: list[Row] = field(default_factory=list)
    vocabulary: Vocabulary = field(default_factory=dict)
    cut: int = 0  # rows with texts that are cut
    inexact: int = 0  # pairs shown as words


def draw(files: Files, measured: Measures, tokenizer: LabelTokenizer | None) -> Shown:
    """Read the chosen rows. Raises StorageError for a damaged file."""
    shown = Shown(measured.rows, sum(measured.rejected.values()))
    chosen = _smallest_ids(measured.ids, measured.diagnoses, MOST_PAIRS)
    pairs = (_pair(row, tokenizer, shown) for row in rows_at(files.published, chosen, _PAIR_COLUMNS))
    shown.pairs = _fitting(pairs, _PAIR_BYTES, shown.vocabulary)
    chosen = _smallest_ids(measured.refused_ids, measured.refused_why, MOST_REJECTS)
    rejects = (_common(row, _REJECT_FIELDS) for row in rows_at(files.rejected, chosen))
    shown.rejects = _fitting(rejects, _REJECT_BYTES, {})
    gain, distance = (_floats(shown.pairs, name) for name in ("reward_gain", "edit_distance"))
    shown.pairs = [shown.pairs[place] for place in best_first(gain, distance)]
    shown.cut = sum(row["cut"] for row in [*shown.pairs, *shown.rejects])
    return shown


def examples(shown: Shown, counts: Counter[tuple[str, str]]) -> list[tuple[str, int, list[tuple[str, str]]]]:
    """For each stage and reason its rows in all, and id and text of some that are shown, near misses of a threshold first."""
    by_reason: dict[tuple[str, str], list[Row]] = {}
    for row in shown.rejects:
        by_reason.setdefault((row["stage"], row["reason"]), []).append(row)
    return [
        (f"{stage}: {reason}", counts[stage, reason], [_example(row) for row in _nearest(rows)])
        for (stage, reason), rows in by_reason.items()
    ]


def _nearest(rows: list[Row]) -> list[Row]:
    missed = [(abs(miss[0] - miss[1]) if (miss := _missed(row)) else math.inf, row) for row in rows]
    return [row for _, row in sorted(missed, key=lambda one: one[0])[:_EXAMPLES]]


def _example(row: Row) -> tuple[str, str]:
    query = row["messages"][-1]["content"] if row["messages"] else ""
    miss = _missed(row)
    return str(row["id"]), one_line(query, 60) + (f" ({miss[0]:.3g}, limit {miss[1]:.3g})" if miss else "")


def _missed(row: Row) -> tuple[float, float] | None:
    """The value of a reject, and the threshold that it missed, by its evidence; None for other rejects."""
    try:
        evidence = json.loads(row["evidence"] or "{}")
        name = next(name for name in _LIMITS if name in evidence)
        others = [evidence[key] for key in evidence if key != name and isinstance(evidence[key], int | float)]
        value = evidence.get(_LIMITS[name], row.get(_LIMITS[name], others[0] if others else None))
        return float(value), float(evidence[name])
    except (ValueError, TypeError, StopIteration):
        return None


def _smallest_ids(ids: npt.NDArray[Any], strata: npt.NDArray[Any], count: int) -> npt.NDArray[np.int64]:
    """At most `count` row numbers: the smallest ids of each stratum, one stratum after the other in turns."""
    order = np.argsort(ids, kind="stable")
    turn = np.empty(len(ids), np.int64)
    for name in np.unique(strata):
        rows = order[strata[order] == name]
        turn[rows] = np.arange(len(rows))
    return np.lexsort((ids, turn))[:count] if len(ids) else np.empty(0, np.int64)


def _fitting(rows: Iterable[Row], budget: int, vocabulary: Vocabulary) -> list[Row]:
    """The first rows, at least one, that fit into `budget` bytes of JSON, with what they add to the vocabulary."""
    kept: list[Row] = []
    known = 0
    for row in rows:
        budget -= len(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        budget -= sum(len(text) + 12 for _, text in islice(vocabulary, known, None))
        known = len(vocabulary)
        if budget < 0 and kept:
            break
        kept.append(row)
    return kept


def _common(row: Row, names: Sequence[str]) -> Row:
    """What pairs and rejects are shown by: fields, numbers and messages; "cut" when a text of them is."""
    # Older data sets have fewer.
    fields, messages = {name: row.get(name) for name in names}, row["messages"] or []
    shown: Row = bounded(fields) | _numbers(row)
    shown["messages"] = [bounded(message) for message in messages]
    shown["cut"] = bounded(fields) != fields or shown["messages"] != messages
    return shown


def _pair(row: Row, tokenizer: LabelTokenizer | None, shown: Shown) -> Row:
    pair = _common(row, _PAIR_FIELDS)
    sides = answers(row, tokenizer)
    shown.inexact += any(token.id is None for side in sides for token in side)
    start = _start([[token.op for token in side] for side in sides])
    for name, side in zip(SIDES, sides, strict=True):
        pair["cut"] |= len(side) > _TOKENS
        before = [Token(None, f"[…{start} tokens before are in the data set] ", KEEP, None)] if start else []
        tokens = [*before, *side[start:]][:_TOKENS]
        places = [shown.vocabulary.setdefault((t.id, t.text[:_TEXT]), len(shown.vocabulary)) for t in tokens]
        runs = groupby((token.op, token.weight) for token in tokens)
        pair[name] = {"t": places, "r": [[sum(1 for _ in run), *value] for value, run in runs]}
    return pair


def _start(ops: Sequence[Sequence[int]]) -> int:
    """How many kept tokens of both sides to leave out, so that a long pair's first edit is among those shown."""
    first = min(next((n for n, op in enumerate(side) if op != KEEP), len(side)) for side in ops)
    return max(0, first - _CONTEXT) if max(map(len, ops)) > _TOKENS else 0


def _numbers(row: Row) -> Row:
    """Rewards, their gain and the edit distance, rounded; None for what is missing or not finite, which JSON doesn't have."""
    finite = {name: row[name] for name in _NUMBERS if row[name] is not None and math.isfinite(row[name])}
    if {"reward_initial", "reward_revised"} <= finite.keys():
        finite["reward_gain"] = finite["reward_revised"] - finite["reward_initial"]
    return {name: round(finite[name], 4) if name in finite else None for name in (*_NUMBERS, "reward_gain")}


def _floats(rows: list[Row], name: str) -> npt.NDArray[np.float64]:
    return np.array([math.nan if row[name] is None else row[name] for row in rows], np.float64)


def bounded(row: Row) -> Row:
    """The row with its long texts cut; what is left out is said in its place."""
    return {name: _cut(value) if isinstance(value, str) else value for name, value in row.items()}


def _cut(text: str) -> str:
    more = len(text) - _TEXT
    return f"{text[:_TEXT]} […{more} more characters are in the data set]" if more > 0 else text
