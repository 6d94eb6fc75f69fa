"""A few numbers per row, read in one pass, for charts, comparisons and the choice of shown rows: 100 bytes per row."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset import reader
from pipeline.dataset.manifest import file_entries
from pipeline.schema import PUBLISHED, REJECTED

Numbers = npt.NDArray[np.float32]
REWARDS = ("reward_reference", "reward_initial", "reward_revised")
OPERATIONS = ("kept", "inserted", "substituted", "deleted")
_SIDES = ("initial", "revised")
_VALUES = ("id", "diagnosis", "source", *REWARDS, "edit_distance")
_TOKENS = ("prompt_input_ids", "revised_input_ids", "initial_input_ids")
_REJECT_COLUMNS = ["id", "stage", "reason", "edit_distance", *REWARDS]
# What lies outside is counted in the outermost bins: one outlier must not flatten everything else.
_CENTRAL = (0.001, 0.999)


@dataclass(frozen=True, slots=True)
class Files:
    """The data set's Parquet files. published, rejected: paths in the manifest's order."""

    published: list[Path]
    rejected: list[Path]


@dataclass(frozen=True, slots=True)
class Measures:
    """One value per published row, in stored order, by name; and counts over all of them.

    numbers: the three rewards, edit_distance, reward_gain, and tokens of prompt, initial and revised; float32 of shape
    (rows,), NaN where the data set has none. ids: bytes of shape (rows,). reasons, sources: rows by diagnosis and by source.
    operations: for each side, tokens by operation, EOS included. rejected: rows by (stage, reason). refused_ids, refused_why:
    of rejected rows, ids and numbers of (stage, reason) in the order of `rejected`. refused: edit_distance and reward_gain of
    rejected revisions. scored: R(initial) and R(reference) of all scored rows, published or not.
    """

    numbers: dict[str, Numbers]
    ids: npt.NDArray[np.bytes_]
    diagnoses: npt.NDArray[np.str_]
    reasons: Counter[str]
    sources: Counter[str]
    operations: dict[str, npt.NDArray[np.int64]]
    rejected: Counter[tuple[str, str]]
    refused_ids: npt.NDArray[np.bytes_]
    refused_why: npt.NDArray[np.int64]
    refused: dict[str, Numbers]
    scored: dict[str, Numbers]

    @property
    def rows(self) -> int:
        return len(self.ids)


def files_of(root: Path, manifest: dict[str, Any]) -> Files:
    """The files that the manifest names. Raises StorageError when one is missing or of another size or shape."""
    published = reader.check_files(root, manifest, "sizes")
    rejected = file_entries(root, manifest, "rejected_files")
    return Files([file.path for file in published], [entry.path for entry in rejected])


def measure(files: Files, advance: Callable[[int], None] = lambda rows: None) -> Measures:
    """Read every published and rejected row once. Raises StorageError for a damaged file."""
    operations = {side: np.zeros(len(OPERATIONS), np.int64) for side in _SIDES}
    parts = [_values(PUBLISHED.empty_table())]
    for path in files.published:
        for batch in reader.batches(path, [*_VALUES, *_TOKENS, *(f"{side}_ops" for side in _SIDES)]):
            parts.append(_values(batch))
            for side in _SIDES:
                ops = batch[f"{side}_ops"].flatten().to_numpy()
                operations[side] += np.bincount(ops[ops >= 0], minlength=len(OPERATIONS))[: len(OPERATIONS)]
            advance(batch.num_rows)
    pairs = pa.concat_tables(parts)
    tables = [reader.read(path, _REJECT_COLUMNS) for path in files.rejected]
    rejects = pa.concat_tables([REJECTED.empty_table().select(_REJECT_COLUMNS), *tables])
    keys = list(zip(rejects["stage"].to_pylist(), rejects["reason"].to_pylist(), strict=True))
    rejected = Counter(keys)
    order = {key: number for number, key in enumerate(rejected)}
    gain = pc.subtract(rejects["reward_revised"], rejects["reward_initial"])
    numbers = _numbers(pairs)
    lost = rejects.filter(pc.and_(rejects["reward_initial"].is_valid(), rejects["reward_reference"].is_valid()))
    return Measures(
        numbers=numbers,
        ids=_ids(pairs),
        diagnoses=np.array(pairs["diagnosis"].to_pylist(), np.str_),
        reasons=Counter(pairs["diagnosis"].to_pylist()),
        sources=Counter(pairs["source"].to_pylist()),
        operations=operations,
        rejected=rejected,
        refused_ids=_ids(rejects),
        refused_why=np.array([order[key] for key in keys], np.int64),
        refused={
            "edit_distance": rejects["edit_distance"].drop_null().to_numpy(),
            "reward_gain": gain.drop_null().to_numpy(),
        },
        scored={
            side: np.concatenate([numbers[f"reward_{side}"], lost[f"reward_{side}"].to_numpy()])
            for side in ("initial", "reference")
        },
    )


def gate_share(published: list[Path], gate: float) -> float | None:
    """Of the tokens with negative weights, the share that the loss's gate passes at the policy's own log-probs.

    None where no such token has a log-prob. Raises StorageError for a damaged file.
    """
    passed = known = 0
    for path in published:
        with reader.reading(path) as file:
            if "initial_logprobs" not in file.schema_arrow.names:
                continue
        for batch in reader.batches(path, ["initial_logprobs", "initial_weights"]):
            rows = batch.filter(batch["initial_logprobs"].is_valid())
            logprobs = rows["initial_logprobs"].flatten().to_numpy(zero_copy_only=False)
            negative = logprobs[(rows["initial_weights"].flatten().to_numpy() < 0) & np.isfinite(logprobs)]
            known += len(negative)
            passed += int((-negative <= gate).sum())
    return passed / known if known else None


def _values(rows: pa.RecordBatch | pa.Table) -> pa.Table:
    """The values of a row that are kept in memory: of token lists, the lengths."""
    columns = {name: rows[name] for name in _VALUES}
    return pa.table(columns | {name: pc.list_value_length(rows[name]) for name in _TOKENS})


def _ids(rows: pa.Table) -> npt.NDArray[np.bytes_]:
    return np.array([str(name).encode() for name in rows["id"].to_pylist()], np.bytes_)


def _numbers(pairs: pa.Table) -> dict[str, Numbers]:
    numbers = {name: pairs[name].to_numpy().astype(np.float32) for name in (*REWARDS, "edit_distance", *_TOKENS)}
    prompt, revised, initial = (numbers.pop(name) for name in _TOKENS)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        numbers["reward_gain"] = numbers["reward_revised"] - numbers["reward_initial"]
    return numbers | {"prompt_tokens": prompt, "initial_tokens": initial - prompt, "revised_tokens": revised - prompt}


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts in shared bins. edges: bins + 1 ascending numbers; counts: rows per bin, for each distribution."""

    edges: list[float]
    counts: dict[str, list[int]]


def histogram(
    values: Mapping[str, npt.NDArray[np.floating]],
    bins: int | None = None,
    limits: tuple[float, float] | None = None,
    through: float | None = None,
) -> Histogram:
    """One histogram of all distributions that have values; what is not finite is left out.

    bins: default: by Rice's rule for the largest distribution, 10 to 40. limits: lowest and highest edge; default: those
    of the central 99.8 % of the values. through: a threshold, at which one bin ends and the next begins.
    """
    finite = {name: numbers[np.isfinite(numbers)] for name, numbers in values.items()}
    finite = {name: numbers for name, numbers in finite.items() if len(numbers)}
    if not finite:
        return Histogram([], {})
    low, high = limits or np.quantile(np.concatenate(list(finite.values())), _CENTRAL).tolist()
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    if bins is None:
        bins = min(40, max(10, math.ceil(2 * max(map(len, finite.values())) ** (1 / 3))))
    if through is not None and low < through < high:
        width = (high - low) / bins
        bins += 1
        low = through - math.ceil((through - low) / width) * width
        high = low + bins * width
    edges = np.linspace(low, high, bins + 1)
    # In float32 the highest value can lie above the highest edge, and would not be counted.
    clipped = {name: np.clip(numbers.astype(np.float64), low, high) for name, numbers in finite.items()}
    counts = {name: np.histogram(numbers, edges)[0].tolist() for name, numbers in clipped.items()}
    return Histogram(edges.tolist(), counts)


def median(values: npt.NDArray[np.floating]) -> float | None:
    """The median of the finite values; None where there is none."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else None
