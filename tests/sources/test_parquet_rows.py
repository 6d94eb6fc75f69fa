"""Parquet: streamed, refused when its footer announces a bomb, and one bad row is one reject."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import sources
from pipeline.errors import InputError, RowReject
from pipeline.sources import rows
from pipeline.sources.readers import parquet_rows
from tests.sources.resolving import resolve


def read(path: Path) -> list[tuple[int, Any]]:
    return [(n, v.reason if isinstance(v, RowReject) else v) for n, v in rows.rows(path, print)]


def test_rows_are_what_was_written(tmp_path: Path) -> None:
    wanted = [
        {
            "prompt": f"q{n} é\0\ufeff",
            "messages": [{"role": "user", "content": "x"}] * (n % 3),
            "score": n / 2,
            "none": None,
        }
        for n in range(1500)
    ]
    pq.write_table(pa.Table.from_pylist(wanted), tmp_path / "a.parquet", row_group_size=400)
    assert read(tmp_path / "a.parquet") == list(enumerate(wanted, 1))


def test_content_goes_before_the_name_and_records_are_numbered(tmp_path: Path) -> None:
    table = pa.table({"prompt": ["q"] * 3, "response": ["r"] * 3})
    pq.write_table(table, tmp_path / "rows.jsonl")
    source = resolve("jsonl", str(tmp_path / "rows.jsonl"))
    found = list(sources.records(source))
    assert [record.where.rpartition(":")[2] for record in found] == ["1", "2", "3"]
    assert found[0].value == {"prompt": "q", "response": "r"}


def bomb(path: Path, values: int) -> Path:
    repeated = pa.DictionaryArray.from_arrays(pa.array(np.zeros(values, np.int8)), pa.array(["x" * 100]))
    pq.write_table(
        pa.table({"prompt": repeated}), path, compression="zstd", row_group_size=values, max_rows_per_page=values
    )
    return path


def test_a_bomb_is_refused_from_its_footer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bomb(tmp_path / "a.parquet", 20_000_000)
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *_: pytest.fail("rows were read"))
    with pytest.raises(InputError, match=r"a\.parquet: refused: .* announce 20,000,000 values; expected at most"):
        read(path)


@pytest.mark.parametrize("limit", ["ALLOWED_BYTES", "MAX_CHUNK_BYTES"])
def test_unpacked_bytes_have_limits_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    pq.write_table(pa.table({"prompt": ["x" * 1000 + str(n) for n in range(1000)]}), tmp_path / "a.parquet")
    assert len(read(tmp_path / "a.parquet")) == 1000
    monkeypatch.setattr(parquet_rows, limit, 10_000)
    monkeypatch.setattr(parquet_rows, "UNPACKED_A_BYTE", 0)
    with pytest.raises(InputError, match=r"refused: .* unpacked bytes"):
        read(tmp_path / "a.parquet")


def test_repetition_as_real_columns_have_it_passes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pa.table({"prompt": [f"{n:x}" for n in rng.integers(0, 2**60, 20_000)], "source": ["same"] * 20_000})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    assert len(read(tmp_path / "a.parquet")) == 20_000


def test_large_rows_and_bad_text_are_rejects_between_good_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_ROW_BYTES", 1000)
    texts = [b"good", b"x" * 2000, b"\xff\xfe", "é".encode(), b"also good"]
    # Arrow doesn't check what it is told is UTF-8; neither do other writers.
    column = _unchecked(texts)
    pq.write_table(pa.table({"prompt": column}), tmp_path / "a.parquet")
    found = [value for _, value in read(tmp_path / "a.parquet")]
    assert found == [{"prompt": "good"}, "row_too_large", "invalid_utf8", {"prompt": "é"}, {"prompt": "also good"}]


def _unchecked(texts: list[bytes]) -> pa.Array:
    binary = pa.array(texts, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(binary), binary.buffers())


@pytest.mark.parametrize("damage", ["cut", "zeros", "footer"])
def test_a_damaged_file_is_one_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.parquet"
    noise = np.random.default_rng(0).bytes(400_000)
    lines = [noise[n : n + 100].hex() for n in range(0, 400_000, 100)]
    pq.write_table(pa.table({"prompt": lines}), path, row_group_size=500, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[:-20_000]
    elif damage == "zeros":
        data[len(data) // 2 : len(data) // 2 + 40_000] = bytes(40_000)
    else:
        data[-30:-8] = b"\xff" * 22
    path.write_bytes(data)
    try:
        count = 0
        for _ in rows.rows(path, print):
            count += 1
    except InputError as error:
        assert "a.parquet" in str(error) and f"{count} rows were read" in str(error) and "\n" not in str(error)
        return
    assert count == len(lines)  # zeros inside a text are still a text
    assert damage == "zeros"


def test_an_empty_table_and_a_table_of_nothing(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="no rows in it"):
        list(sources.records(resolve("jsonl", str(tmp_path / "a.parquet"))))
    (tmp_path / "b.parquet").write_text(json.dumps({"prompt": "q"}))
    with pytest.raises(InputError, match="not Parquet"):
        read(tmp_path / "b.parquet")


def test_any_flipped_byte_gives_rows_or_one_error(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table(
        {"prompt": [f"q{n}" * (n % 7) for n in range(60)], "turns": [[{"role": "user"}] * (n % 3) for n in range(60)]}
    )
    pq.write_table(table, path, row_group_size=20)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    outcomes = set()
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(4, len(data), rng.integers(1, 4)):
            data[place] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            outcomes |= {type(value) for _, value in rows.rows(path, print)}
        except InputError as error:
            assert "\n" not in str(error)
            outcomes.add(InputError)
    assert outcomes == {dict, InputError} or outcomes == {dict, RowReject, InputError}


def test_a_value_that_python_cant_hold_costs_only_its_row(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    far = pa.array([0, 2**62, 1], pa.timestamp("us"))
    pq.write_table(pa.table({"prompt": ["a", "b", "c"], "at": far}), path)
    assert [value if isinstance(value, str) else value["prompt"] for _, value in read(path)] == [
        "a",
        "unreadable_value",
        "c",
    ]
    pq.write_table(pa.table({"at": pa.array([0], pa.timestamp("us", tz="Mars/Phobos"))}), path)
    assert read(path) == [(1, "unreadable_value")]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet: two columns named 'prompt'"):
        read(tmp_path / "a.parquet")


def test_a_flipped_bit_is_seen_where_pages_have_checksums(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"prompt": ["needle"]}), path, compression="none", write_page_checksum=True)
    path.write_bytes(path.read_bytes().replace(b"needle", b"noodle", 1))
    with pytest.raises(InputError, match=r"a\.parquet: damaged"):
        read(path)
