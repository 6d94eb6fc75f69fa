"""A few numbers a row, read in one pass: what charts, comparisons and the choice of shown rows are made from.

Memory: 60 bytes a published row, 100 a rejected one, whatever its texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset import reader
from pipeline.dataset.manifest import file_entries
from pipeline.dataset.reader import batches

Numbers = npt.NDArray[np.float32]
REWARDS = ("reward_reference", "reward_initial", "reward_revised")
OPERATIONS = ("kept", "inserted", "substituted", "deleted")
_TOKENS = ("prompt_input_ids", "revised_input_ids", "initial_input_ids")
_OPS = {"initial": "initial_ops", "revised": "revised_ops"}
_COLUMNS = ["id", "diagnosis", "source", *REWARDS, "edit_distance", *_TOKENS, *_OPS.values()]


@dataclass(frozen=True, slots=True)
class Files:
    """The data set's Parquet files. published, rejected: paths in the manifest's order."""

    root: Path
    published: list[Path]
    rejected: list[Path]


@dataclass(slots=True)
class Measures:
    """One value a published row, in stored order, by name; and counts over all of them.

    numbers: the three rewards, edit_distance, gain, and tokens of prompt, initial and revised; float32 of shape (rows,), NaN
    where the data set has none. ids: bytes of shape (rows,). reasons, sources: rows by diagnosis and by source. operations:
    for each side, tokens by operation, EOS included. rejected: rows by (stage, reason). refused_ids, refused_why: of rejected
    rows, ids and numbers of (stage, reason) in the order of `rejected`. refused: edit_distance and reward_gain of rejected
    revisions.
    """

    numbers: dict[str, Numbers]
    ids: npt.NDArray[np.bytes_]
    diagnoses: npt.NDArray[np.str_]
    reasons: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    operations: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    rejected: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused_ids: npt.NDArray[np.bytes_] = field(default_factory=lambda: np.empty(0, "S1"))
    refused_why: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    refused: dict[str, Numbers] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.ids)


def files_of(root: Path, manifest: dict[str, Any]) -> Files:
    """The files that the manifest names. Raises StorageError when one is missing or of another size or shape."""
    checked = reader.check_files(root, manifest, "sizes")
    entries = file_entries(root, manifest, "rejected_files")
    return Files(root, [file.path for file in checked], [entry.path for entry in entries])


def measure(files: Files, advance: Callable[[int], None] = lambda rows: None) -> Measures:
    """Read every published and rejected row once. Raises StorageError for a damaged file."""
    parts: dict[str, list[Any]] = {name: [] for name in (*REWARDS, "edit_distance", *_TOKENS, "id", "diagnosis")}
    made = Measures({}, np.empty(0, "S1"), np.empty(0, "U1"))
    made.operations = {side: np.zeros(len(OPERATIONS), np.int64) for side in _OPS}
    for path in files.published:
        for batch in batches(path, _COLUMNS):
            _gather(batch, parts, made)
            advance(batch.num_rows)
    made.numbers = _numbers(parts)
    made.ids, made.diagnoses = (_joined(parts[name], empty) for name, empty in (("id", "S1"), ("diagnosis", "U1")))
    _gather_rejected(files.rejected, made)
    return made


def _gather_rejected(paths: list[Path], made: Measures) -> None:
    ids, why, distances, gains = [], [], [], []
    numbers: dict[tuple[str, str], int] = {}
    for path in paths:
        for batch in batches(path, ["id", "stage", "reason", "edit_distance", "reward_initial", "reward_revised"]):
            keys = list(zip(batch["stage"].to_pylist(), batch["reason"].to_pylist(), strict=True))
            made.rejected.update(keys)
            why.append(np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64))
            ids.append(np.array([str(id_).encode() for id_ in batch["id"].to_pylist()], np.bytes_))
            distances.append(batch["edit_distance"].drop_null().to_numpy(zero_copy_only=False))
            gains.append(pc.subtract(batch["reward_revised"], batch["reward_initial"]).drop_null().to_numpy())
    made.refused_ids, made.refused_why = _joined(ids, "S1"), _joined(why, "i8")
    made.refused = {"edit_distance": _joined(distances, "f4"), "reward_gain": _joined(gains, "f4")}


def _gather(batch: pa.RecordBatch, parts: dict[str, list[Any]], made: Measures) -> None:
    for name in (*REWARDS, "edit_distance"):
        parts[name].append(batch[name].to_numpy(zero_copy_only=False).astype(np.float32))
    for name in _TOKENS:
        parts[name].append(pc.list_value_length(batch[name]).to_numpy(zero_copy_only=False).astype(np.float32))
    parts["id"].append(np.array([id_.encode() for id_ in batch["id"].to_pylist()], np.bytes_))
    parts["diagnosis"].append(np.array(batch["diagnosis"].to_pylist(), np.str_))
    made.reasons.update(batch["diagnosis"].to_pylist())
    made.sources.update(batch["source"].to_pylist())
    for side, name in _OPS.items():
        ops = batch[name].flatten().to_numpy()
        made.operations[side] += np.bincount(ops[ops >= 0], minlength=len(OPERATIONS))[: len(OPERATIONS)]


def _numbers(parts: dict[str, list[Any]]) -> dict[str, Numbers]:
    found = {name: _joined(parts[name], "f4") for name in (*REWARDS, "edit_distance", *_TOKENS)}
    prompt, revised, initial = (found.pop(name) for name in _TOKENS)
    tokens = {"prompt_tokens": prompt, "initial_tokens": initial - prompt, "revised_tokens": revised - prompt}
    with np.errstate(invalid="ignore"):  # infinity less infinity
        gain = found["reward_revised"] - found["reward_initial"]
    return found | {"reward_gain": gain} | tokens


def _joined(parts: list[Any], empty: str) -> Any:
    return np.concatenate(parts) if parts else np.empty(0, empty)
