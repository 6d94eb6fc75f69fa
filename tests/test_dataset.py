"""Reading a published data set back, and refusing one that isn't what was published."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipeline
from pipeline import schema
from pipeline.dataset import batches, manifest
from pipeline.dataset import open as dataset
from pipeline.dataset.open import PairDataset, open_dataset
from pipeline.dataset.writer import publish_rows
from pipeline.errors import CurationError, InputError, StorageError, UsageError
from tests.conftest import child_environment
from tests.storage.rows import commit_shards, table

SIZES = [7, 0, 1, 16, 3, 0]
ROWS = sum(SIZES)
SIDES = [f"{side}_{kind}" for side in ("revised", "initial") for kind in ("input_ids", "labels", "weights", "ops")]


def publish(out: Path, sizes: Sequence[int] = SIZES, rows_per_file: int = 10, **changed: Any) -> Path:
    """A small data set: files and manifest as a run writes them, without the run."""
    entries = publish_rows(out, commit_shards(out / "work", list(sizes)), rows_per_file, {"figa.labels": "{}"})
    content = {
        "format": "figa-pipeline",
        "schema_version": schema.SCHEMA_VERSION,
        "labels": {"eos_id": 2},
        "files": entries,
        "rejected_files": [],
    }
    manifest.write(out, content | changed)
    return out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return publish(tmp_path)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several windows in a small data set."""
    monkeypatch.setattr(batches, "WINDOW_ROWS", 4)


def source_rows(found: Any) -> list[int]:
    return [int(row) for batch in found for row in batch["source_row"]]


def test_it_is_the_packages_one_name() -> None:
    assert pipeline.open_dataset is open_dataset
    assert pipeline.__all__ == ["open_dataset"]
    with pytest.raises(AttributeError, match="no attribute 'opendataset'"):
        pipeline.opendataset  # noqa: B018


def test_all_forms_hold_the_published_rows(folder: Path) -> None:
    pairs = open_dataset(folder)
    expected = schema.complete(table("label", 0, ROWS)).select(schema.PUBLISHED.names)
    assert len(pairs) == ROWS
    assert pairs.manifest == manifest.load(folder)
    assert pairs.schema.equals(schema.PUBLISHED)
    assert pairs.schema.metadata[b"figa.labels"] == b"{}"
    assert pairs.to_table().equals(expected)
    assert pairs.to_table(["revised", "id"]).equals(expected.select(["revised", "id"]))
    frame = pairs.to_pandas()
    assert list(frame.columns) == expected.column_names
    assert [row.tolist() for row in frame["revised_weights"]] == expected["revised_weights"].to_pylist()


@pytest.mark.parametrize("limit", [1 << 30, 0])
def test_datasets_hold_the_same_in_memory_and_mapped(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(dataset, "_IN_MEMORY_BYTES", limit)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    pairs = open_dataset(folder)
    for columns in (None, ["id", "revised_ops"]):
        found = pairs.to_datasets(columns)
        assert found.to_list() == pairs.to_table(columns).to_pylist()
        assert found.column_names == pairs.to_table(columns).column_names
    # A cache is made only for what doesn't fit.
    assert bool(found.cache_files) is not bool(limit)
    assert (tmp_path / "cache").exists() is not bool(limit)


def test_batches_have_the_documented_shapes_and_types(folder: Path) -> None:
    pairs = open_dataset(folder)
    (batch,) = pairs.iter_batches(100)
    assert list(batch) == schema.PUBLISHED.names
    expected = pairs.to_table().to_pydict()
    assert [list(m) for m in batch["messages"]] == expected["messages"]
    for name, column in batch.items():
        field = schema.PUBLISHED.field(name).type
        if isinstance(column, batches.Ragged):
            assert column.values.dtype == field.value_type.to_pandas_dtype()
            assert column.offsets.dtype == np.int64
            assert [row.tolist() for row in column] == [row or [] for row in expected[name]]  # null is empty
        elif name != "messages":
            assert column.shape == (ROWS,)
            stored = pairs.to_table()[name].combine_chunks()
            assert pa.types.is_string(field) or stored.null_count or column.dtype == field.to_pandas_dtype()
            assert pa.array(column.tolist(), field, from_pandas=True).equals(stored)  # null is NaN or None


def test_padding(folder: Path) -> None:
    pairs = open_dataset(folder)
    names = [*SIDES, "prompt_input_ids", "id"]
    (batch,) = pairs.iter_batches(100, columns=names, pad=5)
    ids, labels, weights, ops = (batch[f"revised_{kind}"] for kind in ("input_ids", "labels", "weights", "ops"))
    assert ids.shape == labels.shape == weights.shape == ops.shape == (ROWS, 5)
    assert (ids.dtype, labels.dtype, weights.dtype, ops.dtype) == (np.int32, np.int32, np.float32, np.int8)
    assert [a[4, 3:].tolist() for a in (ids, labels, weights, ops)] == [[2, 2], [-100, -100], [0, 0], [-1, -1]]
    assert ids[4, :3].tolist() == [4, 5, 2]
    assert batch["prompt_input_ids"][1].tolist() == [1, 2, 2, 2, 2]
    assert batch["id"].shape == (ROWS,)
    (batch,) = pairs.iter_batches(100, columns=names, pad=True, pad_id=77)
    assert batch["initial_ops"].shape == (ROWS, 3) and batch["prompt_input_ids"].shape == (ROWS, 4)
    assert batch["prompt_input_ids"][0].tolist() == [77] * 4
    with pytest.raises(ValueError, match="3 tokens, more than the width of 2"):
        next(pairs.iter_batches(8, columns=names, pad=2))


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("size", "world_size", "workers"), [(1, 1, 1), (4, 1, 3), (5, 2, 1), (3, 3, 2), (100, 4, 2)])
def test_ranks_and_workers_share_the_rows(
    folder: Path, shuffle: bool, size: int, world_size: int, workers: int
) -> None:
    pairs = open_dataset(folder)
    places = {"batch_size": size, "world_size": world_size, "num_workers": workers, "shuffle": shuffle}
    found = [
        row
        for rank in range(world_size)
        for worker in range(workers)
        for row in source_rows(pairs.iter_batches(rank=rank, worker=worker, **places))
    ]
    assert sorted(found) == list(range(ROWS))


@pytest.mark.usefixtures("small_windows")
def test_rows_stay_whole_in_any_order(folder: Path) -> None:
    pairs = open_dataset(folder)
    stored = {row["source_row"]: row for row in pairs.to_table().to_pylist()}
    for batch in pairs.iter_batches(5, shuffle=True, seed=3):
        for place, row in enumerate(batch["source_row"]):
            for name, column in batch.items():
                expected = stored[row][name]
                if expected is not None:
                    assert np.asarray(column[place]).tolist() == expected, name


@pytest.mark.usefixtures("small_windows")
def test_orders_differ_by_seed_and_epoch_and_are_repeatable(folder: Path) -> None:
    pairs = open_dataset(folder)

    def order(**options: Any) -> list[int]:
        return source_rows(pairs.iter_batches(4, columns=["source_row"], **options))

    assert order() == list(range(ROWS)) == order(seed=4, epoch=2)
    orders = [order(shuffle=True, seed=seed, epoch=epoch) for seed in (0, 7) for epoch in (0, 1)]
    assert orders == [order(shuffle=True, seed=seed, epoch=epoch) for seed in (0, 7) for epoch in (0, 1)]
    assert len({tuple(found) for found in orders}) == 4
    # The order is the epoch's, not the batches'.
    assert source_rows(pairs.iter_batches(9, shuffle=True)) == orders[0]


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("shuffle", [False, True])
def test_going_on_at_any_row(folder: Path, shuffle: bool) -> None:
    pairs = open_dataset(folder)
    whole = source_rows(pairs.iter_batches(4, shuffle=shuffle, epoch=1))
    for start in range(ROWS + 2):
        assert source_rows(pairs.iter_batches(4, shuffle=shuffle, epoch=1, start_row=start)) == whole[start:]


def test_an_opened_set_goes_to_other_processes(folder: Path) -> None:
    pairs: PairDataset = pickle.loads(pickle.dumps(open_dataset(folder)))
    assert source_rows(pairs.iter_batches(10)) == list(range(ROWS))


def test_reading_needs_no_torch(folder: Path) -> None:
    code = f"import sys, pipeline; list(pipeline.open_dataset({str(folder)!r}).iter_batches()); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=child_environment()
    )
    assert (done.stdout.strip(), done.stderr) == ("False", "")


@pytest.mark.parametrize("workers", [0, 2])
def test_the_workers_of_a_data_loader_share_the_rows_by_themselves(folder: Path, workers: int) -> None:
    data = pytest.importorskip("torch.utils.data")

    class Epoch(data.IterableDataset):  # type: ignore[misc]
        def __init__(self, start_row: int) -> None:
            self.pairs, self.start_row = open_dataset(folder), start_row

        def __iter__(self) -> Any:
            return self.pairs.iter_batches(4, columns=["source_row"], shuffle=True, start_row=self.start_row)

    def order(start_row: int = 0) -> list[int]:
        loader = data.DataLoader(
            Epoch(start_row), batch_size=None, num_workers=workers, multiprocessing_context=context
        )
        return source_rows(loader)

    context = "fork" if workers else None
    whole = order()
    assert sorted(whole) == list(range(ROWS))
    assert order(start_row=12) == whole[12:]


def test_an_empty_set_is_a_valid_one(tmp_path: Path) -> None:
    pairs = open_dataset(publish(tmp_path, [0, 0]))
    assert len(pairs) == 0
    assert pairs.to_table().equals(schema.PUBLISHED.empty_table())
    assert list(pairs.iter_batches(shuffle=True)) == []
    assert len(pairs.to_datasets()) == 0


BAD_ARGUMENTS = [
    {"batch_size": 0},
    {"rank": 1},
    {"rank": -1},
    {"world_size": 0},
    {"worker": 2, "num_workers": 2},
    {"worker": 1},
    {"seed": -1},
    {"start_row": -1},
]


@pytest.mark.parametrize("arguments", BAD_ARGUMENTS, ids=str)
def test_arguments_that_make_no_sense(folder: Path, arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"must not be negative|count from 0|together"):
        open_dataset(folder).iter_batches(**arguments)  # type: ignore[arg-type]


def test_unknown_columns_are_named(folder: Path) -> None:
    pairs = open_dataset(folder)
    for read in (pairs.to_table, pairs.to_datasets, lambda names: pairs.iter_batches(columns=names)):
        with pytest.raises(UsageError, match=r"no column 'ids'; there are id, "):
            read(["id", "ids"])
        with pytest.raises(UsageError, match=r"a list of names is expected, got 'id'"):
            read("id")
    with pytest.raises(ValueError, match="'hashes' or 'sizes'"):
        open_dataset(folder, verify="none")  # type: ignore[arg-type]


def rewrite(folder: Path, **changed: Any) -> None:
    manifest.write(folder, (manifest.load(folder) or {}) | changed)


def edit_file(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = manifest.load(folder) or {}
    change(content["files"][0])
    manifest.write(folder, content)


def first(folder: Path) -> Path:
    return sorted(folder.glob("data/*.parquet"))[0]


def flip(path: Path, place: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 4
    path.write_bytes(raw)


def other_type(folder: Path) -> None:
    rows = pq.read_table(first(folder))
    rows = rows.set_column(rows.schema.get_field_index("edit_distance"), "edit_distance", rows["source_row"])
    pq.write_table(rows, first(folder))
    edit_file(folder, lambda entry: entry.update(manifest.file_entry(folder, first(folder), rows.num_rows)))


DAMAGES: dict[str, tuple[Callable[[Path], Any], type[CurationError], str]] = {
    "no manifest": (lambda f: (f / "manifest.json").unlink(), InputError, r"no manifest.json, so no finished data set"),
    "torn manifest": (
        lambda f: (f / "manifest.json").write_text('{"format'),
        StorageError,
        "not readable as a manifest",
    ),
    "edited manifest": (
        lambda f: (f / "manifest.json").write_text(
            (f / "manifest.json").read_text().replace('"eos_id": 2', '"eos_id": 3')
        ),
        StorageError,
        "was edited or damaged",
    ),
    "another program's": (lambda f: rewrite(f, format="other"), InputError, "not of this program"),
    "no version": (lambda f: rewrite(f, schema_version=None), InputError, "not of this program"),
    "newer": (
        lambda f: rewrite(f, schema_version="2.0"),
        InputError,
        r"schema version 2.0, this program reads 1.x; install",
    ),
    "no list": (lambda f: rewrite(f, files=[{"path": "x"}]), StorageError, "list of files can't be read"),
    "no files": (lambda f: rewrite(f, files=[]), StorageError, "names no file"),
    "outside": (lambda f: edit_file(f, lambda e: e.update(path="../x.parquet")), StorageError, "is outside the folder"),
    "missing": (
        lambda f: first(f).unlink(),
        StorageError,
        r"train-00000-of-00003.parquet: .*missing.*run the command",
    ),
    "short": (lambda f: first(f).write_bytes(first(f).read_bytes()[:-1]), StorageError, "bytes, the manifest says"),
    "rows": (lambda f: edit_file(f, lambda e: e.update(rows=8)), StorageError, "9 rows, the manifest says 8"),
    "type": (other_type, StorageError, "column edit_distance is missing or not float"),
}


@pytest.mark.parametrize("verify", ["hashes", "sizes"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_not_as_published_is_refused(folder: Path, damage: str, verify: Any) -> None:
    harm, error, message = DAMAGES[damage]
    harm(folder)
    with pytest.raises(error, match=message) as caught:
        open_dataset(folder, verify=verify)
    assert "\n" not in str(caught.value)


def test_an_older_minor_version_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = open_dataset(folder)
    younger = pa.schema([*schema.PUBLISHED, ("later", pa.int8())])
    monkeypatch.setattr(schema, "PUBLISHED", younger)
    with pytest.raises(StorageError, match="column later is missing"):
        open_dataset(folder)
    monkeypatch.setattr(schema, "SINCE", {"later": "1.99"})
    assert open_dataset(folder) == pairs


def test_a_newer_minor_version_is_read(folder: Path) -> None:
    rewrite(folder, schema_version=f"{schema.SCHEMA_VERSION.split('.')[0]}.99")
    assert len(open_dataset(folder)) == ROWS


def test_a_flipped_bit_is_found_wherever_it_is(folder: Path) -> None:
    path = first(folder)
    for place in range(0, path.stat().st_size, 97):
        flip(path, place)
        with pytest.raises(StorageError, match=path.name):
            open_dataset(folder)
        flip(path, place)
    assert len(open_dataset(folder)) == ROWS


def test_pages_are_checked_even_if_hashes_are_not(folder: Path) -> None:
    path = first(folder)
    pairs = open_dataset(folder, verify="sizes")
    flip(path, pq.ParquetFile(path).metadata.row_group(0).column(5).data_page_offset + 40)
    for read in (pairs.to_table, lambda: list(pairs.iter_batches())):
        with pytest.raises(StorageError, match=rf"{path.name}: not as it was published \("):
            read()


def test_files_that_the_manifest_does_not_name_are_ignored(folder: Path) -> None:
    (folder / "data" / "train-00009-of-00010.parquet").write_bytes(first(folder).read_bytes())
    assert len(open_dataset(folder).to_table()) == ROWS


def test_a_manifest_of_json_that_is_no_object(folder: Path) -> None:
    (folder / "manifest.json").write_text(json.dumps([1]))
    with pytest.raises(StorageError, match="an object is expected"):
        open_dataset(folder)
