"""What readers get: evenly sized files in the source's order, the ledger, and nothing that the manifest doesn't name."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema
from pipeline.dataset import manifest
from pipeline.dataset.reader import SUPERSEDED, open_file
from pipeline.dataset.writer import forget_superseded, publish_rejects, publish_rows, supersede
from pipeline.errors import StorageError
from pipeline.storage import stage_files
from tests.storage.rows import commit_shards, table

METADATA = {"figa.schema_version": schema.SCHEMA_VERSION, "figa.labels": "{}"}
SIZES = [7, 0, 1, 16, 3, 0]


def parquet_files(out: Path) -> list[Path]:
    return sorted(out.glob("data/*.parquet"))


def check_entries(out: Path, entries: list[dict[str, Any]]) -> None:
    for entry in entries:
        raw = (out / entry["path"]).read_bytes()
        assert entry["bytes"] == len(raw)
        assert entry["sha256"] == hashlib.sha256(raw).hexdigest()
        assert entry["rows"] == pq.ParquetFile(out / entry["path"]).metadata.num_rows


@pytest.mark.parametrize("rows_per_file", [1, 2, 4, 5, 7, 9, 13, 26, 27, 28, 1000])
def test_files_are_even_and_in_order(tmp_path: Path, rows_per_file: int) -> None:
    files = commit_shards(tmp_path / "work", SIZES)
    entries = publish_rows(tmp_path, files, rows_per_file, METADATA)
    rows = [entry["rows"] for entry in entries]
    assert sum(rows) == 27
    assert len(rows) == -(-27 // rows_per_file)
    # No file above the limit, no more files than it needs, and the rows spread over them: only the last one is shorter.
    assert rows[0] == -(-27 // len(rows)) <= rows_per_file
    assert len(set(rows[:-1])) <= 1 and 0 < rows[-1] <= rows[0]
    paths = parquet_files(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [entry["path"] for entry in entries]
    assert [path.name for path in paths] == [
        f"train-{number:05d}-of-{len(rows):05d}.parquet" for number in range(len(rows))
    ]
    read = pa.concat_tables([pq.read_table(path) for path in paths])
    assert read["source_row"].to_pylist() == list(range(27))
    assert read.equals(schema.complete(table("label", 0, 27)).select(schema.PUBLISHED.names))
    check_entries(tmp_path, entries)


def test_every_file_has_the_contracts_schema_and_metadata(tmp_path: Path) -> None:
    publish_rows(tmp_path, commit_shards(tmp_path / "work", SIZES), 10, METADATA)
    for path in parquet_files(tmp_path):
        found = pq.read_schema(path)
        assert found.equals(schema.PUBLISHED)
        assert {key: found.metadata[key.encode()].decode() for key in METADATA} == METADATA


@pytest.mark.parametrize("sizes", [[], [0], [0, 0, 0]])
def test_no_rows_are_one_empty_valid_file(tmp_path: Path, sizes: list[int]) -> None:
    entries = publish_rows(tmp_path, commit_shards(tmp_path / "work", sizes), 10, METADATA)
    (path,) = parquet_files(tmp_path)
    assert path.name == "train-00000-of-00001.parquet"
    read = pq.read_table(path)
    assert (read.num_rows, read.schema.equals(schema.PUBLISHED)) == (0, True)
    assert entries[0]["rows"] == 0
    check_entries(tmp_path, entries)


def test_bytes_are_the_same_every_time(tmp_path: Path) -> None:
    published = []
    for name in ("a", "b"):
        out = tmp_path / name
        rows = publish_rows(out, commit_shards(out / "work", SIZES, rejected=2), 10, METADATA)
        rejects, _ = publish_rejects(out, out / "work", len(SIZES))
        published.append([*rows, *rejects])
    assert published[0] == published[1]
    # Over what is already there, too.
    out = tmp_path / "a"
    again = publish_rows(out, stage_files.inspect_all(out / "work", "label", len(SIZES)), 10, METADATA)
    assert again == published[0][: len(again)]


def test_rejects_are_one_file_a_stage_with_their_reasons_counted(tmp_path: Path) -> None:
    work = tmp_path / "work"
    commit_shards(work, [4, 4, 4], rejected=3)
    entries, reasons = publish_rejects(tmp_path, work, 3)
    assert [(entry["path"], entry["rows"]) for entry in entries] == [("rejected/source.parquet", 9)]
    assert reasons["source"] == {"wrong_shape": 6, "duplicate_query": 3}
    assert {stage for stage in schema.STAGES if not reasons[stage]} == set(schema.STAGES) - {"source"}
    ledger = pq.read_table(tmp_path / "rejected" / "source.parquet")
    assert ledger.schema.equals(schema.REJECTED)
    assert ledger["source_row"].to_pylist() == list(range(1000, 1009))
    check_entries(tmp_path, entries)


def test_what_an_earlier_publication_left_is_set_aside_and_nothing_else(tmp_path: Path) -> None:
    files = commit_shards(tmp_path / "work", SIZES, rejected=2)
    first = [*publish_rows(tmp_path, files, 5, METADATA), *publish_rejects(tmp_path, tmp_path / "work", 6)[0]]
    (tmp_path / "data" / "notes.txt").write_text("mine")
    second = publish_rows(tmp_path, files, 20, METADATA)
    assert len(parquet_files(tmp_path)) == len(first) - 1 + len(second)
    supersede(tmp_path, second)
    assert [path.name for path in parquet_files(tmp_path)] == [Path(entry["path"]).name for entry in second]
    assert not list(tmp_path.glob("rejected/*"))
    assert (tmp_path / "data" / "notes.txt").exists()
    assert len(list((tmp_path / SUPERSEDED).rglob("*.parquet"))) == len(first)
    forget_superseded(tmp_path)
    assert not list((tmp_path / SUPERSEDED).rglob("*.parquet"))
    assert len(list((tmp_path / "work").glob("label/*.arrow"))) == 6


def test_a_damaged_shard_is_named_and_not_published(tmp_path: Path) -> None:
    files = commit_shards(tmp_path / "work", [5, 5])
    raw = files[1].path.read_bytes()
    files[1].path.write_bytes(raw[:300] + bytes([raw[300] ^ 4]) + raw[301:])
    with pytest.raises(StorageError, match=r"label/00001.arrow: damaged"):
        publish_rows(tmp_path, files, 10, METADATA)
    assert not parquet_files(tmp_path)
    assert not list((tmp_path / "data").glob(".tmp-*"))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    files = commit_shards(tmp_path / "work", SIZES, rejected=2)
    entries = publish_rows(tmp_path, files, 10, METADATA)
    ledger, _ = publish_rejects(tmp_path, tmp_path / "work", len(SIZES))
    manifest.write(tmp_path, {"run_digest": "abc", "note": "é \u202e", "files": entries, "rejected_files": ledger})
    return tmp_path


def test_a_manifest_stands_while_its_files_do(published: Path) -> None:
    found = manifest.find_current(published, "abc")
    assert found is not None
    assert found == manifest.load(published)
    assert found["note"] == "é \u202e"
    assert manifest.find_current(published, "another run") is None
    assert manifest.find_current(published / "work", "abc") is None
    assert manifest.load(published / "work") is None


@pytest.mark.parametrize("name", ["data/train-00001-of-00003.parquet", "rejected/source.parquet"])
@pytest.mark.parametrize("how", ["missing", "shortened", "a folder"])
def test_a_missing_or_shortened_file_is_noticed(published: Path, name: str, how: str) -> None:
    path = published / name
    raw = path.read_bytes()
    path.unlink()
    if how == "shortened":
        path.write_bytes(raw[:-1])
    elif how == "a folder":
        path.mkdir()
    assert manifest.find_current(published, "abc") is None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '"abc"', '{"run_digest": "abc"}', "\ufeff{}", '{"run_digest":']
)
def test_something_else_under_the_manifests_name_does_not_stand(published: Path, content: str) -> None:
    (published / manifest.NAME).write_text(content, "utf-8")
    assert manifest.find_current(published, "abc") is None


@pytest.mark.parametrize("content", [b"{", b"[]", b"7", b"\xff\xfe"])
def test_a_manifest_that_is_none_is_named(published: Path, content: bytes) -> None:
    (published / manifest.NAME).write_bytes(content)
    with pytest.raises(StorageError, match=r"manifest.json: .* run the command that made the data set"):
        manifest.load(published)


def test_a_republication_leaves_readers_of_the_one_before_undisturbed(published: Path) -> None:
    before = manifest.load(published)
    assert before is not None
    old = {entry["path"]: (published / entry["path"]).read_bytes() for entry in before["files"]}
    files = commit_shards(published / "work", [*SIZES, 9], rejected=2)
    entries = publish_rows(published, files, 10, METADATA)
    assert not {entry["path"] for entry in entries} & old.keys()
    assert all(
        Path(entry["path"]).stem.endswith(f"-{entry['sha256'][:8]}") and entry["path"].count("-") == 4
        for entry in entries
    )
    assert {name: (published / name).read_bytes() for name in old} == old, "the standing manifest is still true"
    manifest.write(published, {"files": entries, "rejected_files": []})
    supersede(published, entries)
    for entry in before["files"]:
        assert not (published / entry["path"]).exists()
        with open_file(published / entry["path"]) as file:
            assert file.metadata.num_rows == entry["rows"]
    assert publish_rows(published, files, 10, METADATA) == entries, "the same bytes keep their name"
