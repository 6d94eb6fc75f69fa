"""CSV and TSV: one bad row is one reject, and a line number leads to it."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError, RowReject
from pipeline.sources import rows


def read(path: Path, data: bytes) -> list[tuple[int, Any]]:
    path.write_bytes(data)
    return [(n, v.reason if isinstance(v, RowReject) else v) for n, v in rows.rows(path, print)]


def test_quotes_line_breaks_and_empty_cells(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbfprompt,response\r\n"a, b","two\r\nlines"\r\n\r\n"say ""hi""",\r\nx,=1+1\r\n'
    wanted = [
        (2, {"prompt": "a, b", "response": "two\r\nlines"}),
        (5, {"prompt": 'say "hi"', "response": ""}),
        (6, {"prompt": "x", "response": "=1+1"}),
    ]
    assert read(tmp_path / "a.csv", data) == wanted
    assert read(tmp_path / "a.csv.gz", gzip.compress(data)) == wanted


def test_tabs(tmp_path: Path) -> None:
    assert read(tmp_path / "a.tsv", b"prompt\tresponse\na,b\tc\n") == [(2, {"prompt": "a,b", "response": "c"})]


def test_bad_rows_between_good_ones(tmp_path: Path) -> None:
    data = b"prompt,response\nq,r\nonly one\n\xff,r\nq,r,more\nq\0,\xc3\xa9\n"
    found = read(tmp_path / "a.csv", data)
    assert [value for _, value in found] == [
        {"prompt": "q", "response": "r"},
        "wrong_shape",
        "invalid_utf8",
        "wrong_shape",
        {"prompt": "q\0", "response": "é"},
    ]
    assert [number for number, _ in found] == [2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"a,b,a\n1,2,3\n", "'a' twice"),
        (b"\n", "got none"),
        (b'a,b\n1,2\n"open,2\n3,4\n', "a quote left open"),
        (b'a,b\n1,2\n"x"y,2\n', "a.csv:3: not CSV"),
    ],
)
def test_a_file_that_is_no_table(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path / "a.csv", data)
    assert says in str(caught.value) and "a.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_an_endless_line_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_ROW_BYTES", 1000)
    with pytest.raises(InputError, match="a line of over 1,000 characters"):
        read(tmp_path / "a.csv", b"a,b\n1," + b"x" * 5000)


@given(data=st.binary(max_size=60) | st.text(st.sampled_from('a",\r\n\0é'), max_size=40).map(str.encode))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_rows_or_one_error(tmp_path: Path, data: bytes) -> None:
    try:
        found = read(tmp_path / "a.csv", b"a,b\n" + data)
    except InputError as error:
        assert "\n" not in str(error)
        return
    numbers = [number for number, _ in found]
    assert numbers == sorted(set(numbers)) and all(isinstance(value, dict | str) for _, value in found)
