"""Which rows the viewer shows. Ids are hashes, so the rows with the smallest ids are a fair sample, the same every time.

Strata (diagnoses; for rejects, stage and reason) are filled in turns: rare ones are shown whole, common ones share the rest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.dataset.measures import Files, Measures
from pipeline.dataset.reader import batches
from pipeline.labels.alignment import KEEP
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.report import tokens

PAIRS, REJECTS = 2000, 500
_PAIR_BYTES, _REJECT_BYTES = 5_500_000, 1_500_000
_TEXT = 20_000
_TOKENS, _CONTEXT = 4000, 200
_REJECT_COLUMNS = ("id", "source", "stage", "reason", "evidence", "reference", "initial", "revised", "diagnosis")
_FACTS = ("id", "source", "source_row", "reference", "diagnosis")
_SCORES = ("reward_reference", "reward_initial", "reward_revised", "edit_distance")
_TOKEN_COLUMNS = [f"{side}_{kind}" for side in tokens.SIDES for kind in ("input_ids", "weights", "ops")]
_PAIR_COLUMNS = [*_FACTS, *_SCORES, "messages", *tokens.SIDES, "prompt_input_ids", *_TOKEN_COLUMNS]
_BATCH = 1024
Row = dict[str, Any]


@dataclass(slots=True)
class Shown:
    """What the viewer holds. vocabulary: [id, text] of every token that occurs, which rows refer to by position.

    cut: texts shown up to a length; inexact: pairs shown as words; pairs_of, rejects_of: rows there are.
    """

    pairs: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[dict[str, Any]] = field(default_factory=list)
    vocabulary: list[tuple[int | None, str]] = field(default_factory=list)
    cut: int = 0
    inexact: int = 0
    pairs_of: int = 0
    rejects_of: int = 0


def draw(files: Files, measured: Measures, tokenizer: LabelTokenizer | None) -> Shown:
    """Read the chosen rows. Raises StorageError for a damaged file."""
    shown = Shown(pairs_of=measured.rows, rejects_of=sum(measured.rejected.values()))
    place: dict[tuple[int | None, str], int] = {}
    left = _PAIR_BYTES
    chosen = _smallest_ids(measured.ids, measured.diagnoses, PAIRS)
    # Kept as Arrow has them: as Python objects, ids and weights take ten times the memory.
    for one in _in_order(files.published, chosen, lambda one: one, _PAIR_COLUMNS):
        known = len(place)
        pair = _pair(_as_row(one), tokenizer, place, shown)
        left -= _size(pair) + sum(len(text) + 12 for _, text in list(place)[known:])
        if left < 0 and shown.pairs:
            break
        shown.pairs.append(pair)
    shown.vocabulary = list(place)
    left = _REJECT_BYTES
    for reject in _in_order(
        files.rejected, _smallest_ids(measured.refused_ids, measured.refused_why, REJECTS), _reject
    ):
        left -= _size(reject)
        if left < 0 and shown.rejects:
            break
        shown.rejects.append(reject)
    shown.cut = sum(row.pop("cut", False) for row in [*shown.pairs, *shown.rejects])
    return shown


def _smallest_ids(ids: npt.NDArray[Any], strata: npt.NDArray[Any], count: int) -> npt.NDArray[np.int64]:
    """At most `count` row numbers: the smallest ids of each stratum, one stratum after the other in turns."""
    order = np.argsort(ids, kind="stable")
    turn = np.empty(len(ids), np.int64)
    for name in np.unique(strata):
        rows = order[strata[order] == name]
        turn[rows] = np.arange(len(rows))
    return np.lexsort((ids, turn))[:count] if len(ids) else np.empty(0, np.int64)


def _in_order(
    paths: list[Path],
    positions: npt.NDArray[np.int64],
    shape: Callable[[pa.RecordBatch], Any],
    columns: Sequence[str] | None = None,
) -> list[Any]:
    """What `shape` makes of the rows at these positions over all files, each a batch of one, in the order of the positions."""
    first, wanted = 0, np.sort(positions)
    found: dict[int, Any] = {}
    for path in paths:
        for batch in batches(path, columns, _BATCH):
            inside = wanted[(wanted >= first) & (wanted < first + batch.num_rows)]
            if len(inside):
                taken = batch.take(pa.array(inside - first))
                found |= {position: shape(taken.slice(n, 1)) for n, position in enumerate(inside.tolist())}
            first += batch.num_rows
    return [found[position] for position in positions.tolist()]


def _as_row(one: pa.RecordBatch) -> Row:
    row: Row = one.to_pylist()[0]
    return row


def _pair(
    row: dict[str, Any], tokenizer: LabelTokenizer | None, place: dict[tuple[int | None, str], int], shown: Shown
) -> dict[str, Any]:
    made = bounded({name: row[name] for name in _FACTS}) | _scores(row)
    made["messages"] = [bounded(message) for message in row["messages"]]
    sides = tokens.of_row(row, tokenizer)
    shown.inexact += sides["initial"].ids is None
    start = _start([own.ops for own in sides.values()])
    for side, own in sides.items():
        ids: Sequence[int | None] = own.ids or [None] * len(own.texts)
        weights: Sequence[float | None] = own.weights or [None] * len(own.texts)
        items = list(zip(ids, own.texts, own.ops, weights, strict=True))
        made["cut"] = made.get("cut") or len(items) > _TOKENS
        if start:
            items[:start] = [(None, f"[…{start} tokens before are in the data set] ", KEEP, None)]
        items = items[:_TOKENS]
        made[side] = {
            "t": [place.setdefault((id_, text[:_TEXT]), len(place)) for id_, text, _, _ in items],
            "r": [[count, *value] for count, value in tokens.runs((op, weight) for _, _, op, weight in items)],
        }
    made["cut"] |= any(message.pop("cut", False) for message in made["messages"])
    return made


def _start(ops: Sequence[Sequence[int]]) -> int:
    """How many kept tokens of both sides to leave out, so that a long pair's first edit is among those shown."""
    if max(map(len, ops)) <= _TOKENS:
        return 0
    first = min(next((n for n, op in enumerate(side) if op != KEEP), len(side)) for side in ops)
    return max(0, first - _CONTEXT)


def _scores(row: dict[str, Any]) -> dict[str, Any]:
    """Rounded; None for what isn't there or isn't finite, which JSON doesn't have."""
    known = {name: row[name] if row[name] is not None and math.isfinite(row[name]) else None for name in _SCORES}
    initial, revised = known["reward_initial"], known["reward_revised"]
    known["reward_gain"] = revised - initial if revised is not None and initial is not None else None
    return {name: None if value is None else round(value, 4) for name, value in known.items()}


def _reject(one: pa.RecordBatch) -> Row:
    row = _as_row(one)
    made = bounded({name: row[name] for name in _REJECT_COLUMNS}) | _scores(row)
    made["messages"] = [bounded(message) for message in row["messages"] or []]
    made["cut"] = made.get("cut", False) | any(message.pop("cut", False) for message in made["messages"])
    return made


def bounded(row: dict[str, Any]) -> dict[str, Any]:
    """Texts up to a length, with what is left out said in their place."""
    made = dict(row)
    for name, value in row.items():
        if isinstance(value, str) and len(value) > _TEXT:
            made[name] = f"{value[:_TEXT]} […{len(value) - _TEXT} more characters are in the data set]"
            made["cut"] = True
    return made


def _size(row: dict[str, Any]) -> int:
    return len(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass"))
