"""Rows of one file: what is wrong with a row is that row's reject; what is wrong with the file is one error."""

import bz2
import contextlib
import gzip
import io
import json
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError, RowReject
from pipeline.sources import rows as module
from pipeline.sources.readers import json_rows

GOOD = b'{"prompt": "q", "response": "r"}'


def read(path):
    warnings = []
    found = [
        (number, value.reason if isinstance(value, RowReject) else value)
        for number, value in module.rows(path, warnings.append)
    ]
    return found, warnings


def value_of(tmp_path, line):
    """What one bad line between two good ones gives; the good ones must survive."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD + b"\n" + line + b"\n" + GOOD + b"\n")
    (one, first), (two, value), (three, last) = list(module.rows(path, print))
    assert (one, two, three) == (1, 2, 3) and first == last == json.loads(GOOD)
    return value


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"prompt": "\xff\xfe"}', "invalid_utf8"),
        (b'{"prompt": "\xed\xa0\x80"}', "invalid_utf8"),
        (b'{"prompt": "q"', "malformed_json"),
        (b'{"prompt": "q"} x', "malformed_json"),
        (b'{"prompt": "a\x01b"}', "malformed_json"),
        (b"plain", "malformed_json"),
        (b"[1, 2]", "not_an_object"),
        (b"null", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too_deep"),
        (b"[" * 100_000, "too_deep"),
        (b'{"a":' * 100_000, "too_deep"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "number_too_long"),
        (b'{"a": 1, "b": 2, "a": 1}', "duplicate_key"),
        (b'{"a": {"b": 1, "b": 2}}', "duplicate_key"),
        (b'{"a": Infinity}', "not_a_number"),
        (b'{"a": [-Infinity]}', "not_a_number"),
        (b'{"a": 1e999}', "not_a_number"),
        (b'{"a": "' + b"x" * 10_000_001 + b'"}', "row_too_large"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[:12].decode("latin-1"),
)
def test_bad_rows(tmp_path, line, reason):
    value = value_of(tmp_path, line)
    assert isinstance(value, RowReject) and value.reason == reason
    assert {"expected", "got"} <= set(value.evidence)
    assert len(str(value.evidence)) < 400 and json.dumps(value.evidence).isascii()


def test_malformed_json_names_the_position(tmp_path):
    evidence = value_of(tmp_path, b'{"prompt": "q" "response": "r"}').evidence
    assert evidence["got"].startswith("Expecting ',' delimiter at character 16: ")


def test_invalid_utf8_names_the_byte(tmp_path):
    assert value_of(tmp_path, b'{"prompt": "\xff"}').evidence["byte"] == 12


def test_nan_is_no_value(tmp_path):
    assert value_of(tmp_path, b'{"a": NaN, "b": [NaN]}') == {"a": None, "b": [None]}


def test_lone_surrogates_reach_the_adapter(tmp_path):
    assert value_of(tmp_path, rb'{"prompt": "\ud800"}') == {"prompt": "\ud800"}


def test_blank_lines_bom_crlf_and_no_final_newline(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD + b"\r\n\r\n   \n" + GOOD + b"\r\n\n" + GOOD)
    assert [number for number, value in read(path)[0] if isinstance(value, dict)] == [1, 4, 6]


def test_a_row_is_capped_without_being_held(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.writelines(b"x" * 1_000_000 for _ in range(50))
        file.write(b"\n" + GOOD)
    assert read(path)[0] == [(1, "row_too_large"), (2, json.loads(GOOD))]
    monkeypatch.setattr(json_rows, "MAX_SKIP_BYTES", 20_000_000)
    with pytest.raises(InputError, match="one row of over"):
        read(path)


PACK = {"gz": gzip.compress, "bz2": bz2.compress, "zst": zstandard.compress}


@pytest.mark.parametrize("kind", PACK)
def test_packed_files(tmp_path, kind):
    lines = b"".join(b'{"n": %d}\n' % number for number in range(20_000))
    path = tmp_path / f"rows.jsonl.{kind}"
    path.write_bytes(PACK[kind](lines) + PACK[kind](lines))  # several members in one file are one text
    found, warnings = read(path)
    assert [value["n"] for _, value in found] == [*range(20_000), *range(20_000)]
    assert warnings == []


@pytest.mark.parametrize("kind", PACK)
def test_magic_bytes_go_before_the_suffix(tmp_path, kind):
    for name in ("rows.jsonl", "rows.jsonl.gz", "rows.jsonl.zst"):
        path = tmp_path / name
        path.write_bytes(PACK[kind](GOOD))
        assert read(path)[0] == [(1, json.loads(GOOD))]


def test_plain_text_with_a_packed_name_is_read_with_a_warning(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(GOOD)
    found, warnings = read(path)
    assert found == [(1, json.loads(GOOD))] and "not packed" in warnings[0]


def whole_lines(kind, data):
    """Lines that another reader gets out of a file that was cut short."""
    readers = {
        "gz": lambda: zlib.decompressobj(31).decompress(data),
        "bz2": lambda: bz2.BZ2Decompressor().decompress(data),
        "zst": lambda: zstandard.ZstdDecompressor().stream_reader(data).read(),
    }
    return readers[kind]().count(b"\n")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
@pytest.mark.parametrize("kind", PACK)
def test_cut_short_keeps_every_row_before_and_says_how_many(tmp_path, kind, name):
    noise = __import__("random").Random(0)
    rows = [b'{"n": "%x"}' % noise.getrandbits(2048) for _ in range(4_000)]
    packed = PACK[kind](
        b"[" + b",\n".join(rows) + b"]" if name == "rows.json" else b"".join(row + b"\n" for row in rows)
    )
    path = tmp_path / f"{name}.{kind}"
    for cut in (len(packed) * 2 // 3, len(packed) - 1):
        path.write_bytes(packed[:cut])
        before = 0
        with pytest.raises(InputError) as caught:
            for _, value in module.rows(path, print):
                before += isinstance(value, dict)
        assert f"{before} rows were read before" in str(caught.value) and str(path) in str(caught.value)
        assert before - whole_lines(kind, packed[:cut]) in ((0, 1) if name == "rows.json" else (0,))
        assert 500 < before <= 4_000


@pytest.mark.parametrize("kind", PACK)
def test_corrupt_in_the_middle(tmp_path, kind):
    path = tmp_path / f"rows.jsonl.{kind}"
    packed = bytearray(PACK[kind](GOOD * 5_000))
    packed[len(packed) // 2 :] = bytes(len(packed) - len(packed) // 2)
    path.write_bytes(packed)
    with pytest.raises(InputError, match="rows were read before"):
        read(path)


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("a.jsonl.gz", b"\x00\x01 not gzip", "not a .gz file"),
        ("a.jsonl", b"PK\x03\x04....", "a zip archive"),
        ("a.jsonl", b"PAR1....", "Parquet"),
        ("a.jsonl", "x".encode("utf-16"), "UTF-16"),
    ],
)
def test_files_of_another_kind(tmp_path, name, data, what):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match=what):
        read(path)


def array(tmp_path, data, name="rows.json"):
    path = tmp_path / name
    path.write_bytes(data)
    return read(path)[0]


def test_a_json_array(tmp_path):
    text = b'\xef\xbb\xbf \n[ {"n": 1},\n {"n": Infinity}, 3 , {"n": 4, "n": 4}, {"n": 5} ]\n'
    expected = [(1, {"n": 1}), (2, "not_a_number"), (3, "not_an_object"), (4, "duplicate_key"), (5, {"n": 5})]
    assert array(tmp_path, text) == expected
    assert array(tmp_path, gzip.compress(text), "rows.json.gz") == expected
    assert array(tmp_path, b" [ ] ") == []


def test_json_lines_under_a_json_name(tmp_path):
    assert array(tmp_path, b'{"n": 1}\n{"n": 2}\n') == [(1, {"n": 1}), (2, {"n": 2})]


@pytest.mark.parametrize(
    "text",
    [b'[{"n": 1}, {"n": ', b'[{"n": 1} {"n": 2}]', b'[{"n": 1}', b'[{"n": 1}] x', b'[{"n": 1}, ' + b"[" * 100_000],
)
def test_a_broken_array_says_where(tmp_path, text):
    with pytest.raises(InputError, match=r"rows\.json: .*after element 1: .*; 1 rows were read"):
        array(tmp_path, text)


def test_a_bad_element_of_an_array_costs_only_itself(tmp_path):
    deep, large = b"[" * 100_000 + b"]" * 100_000, b'{"n": "' + b"x" * 10_000_001 + b'"}'
    bad = {b'{"n": 2,}': "malformed_json", b"": "malformed_json", b'{"n": "\xff"}': "invalid_utf8", deep: "too_deep"}
    bad |= {large: "row_too_large", b'"],{"': "not_an_object", b"x": "malformed_json"}
    good = b'{"n": "]}\\\\\\"[", "m": [{}, [1]]}'
    found = array(tmp_path, b"[" + b",".join(part for line in bad for part in (good, line)) + b"," + good + b"]")
    assert [value for _, value in found[1::2]] == list(bad.values())
    assert [value for _, value in found[::2]] == [json.loads(good)] * (len(bad) + 1)


@pytest.mark.parametrize("at_a_time", [1, 2, 3, 7, 64])
def test_an_array_is_read_the_same_whatever_comes_at_a_time(tmp_path, monkeypatch, at_a_time):
    text = '\ufeff [ {"a": "x\\"]é😀\\\\", "b": [1, {"c": null}]}, 12, "s,]", {"n": 1, "n": 2}, {"k":1.5e3} ,\n{}] '.encode()
    wanted = array(tmp_path, text)
    assert [value for _, value in wanted][1:4] == ["not_an_object", "not_an_object", "duplicate_key"]
    monkeypatch.setattr(json_rows, "_READ_BYTES", at_a_time)
    assert array(tmp_path, text) == wanted
    monkeypatch.setattr(json_rows, "_READ_BYTES", at_a_time + 1)
    assert array(tmp_path, text) == wanted


ARRAYS = st.lists(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text('ab"\\[]{},:é😀\n ', max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a"]', max_size=3), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=5,
)
DAMAGE = st.lists(
    st.tuples(st.integers(1, 200), st.sampled_from([b'"', b"\\", b"[", b"]", b"}", b",", b"\xff", b""])), max_size=2
)


@given(values=ARRAYS, damage=DAMAGE, sizes=st.tuples(st.integers(1, 20), st.integers(1, 20)), plain=st.booleans())
@settings(max_examples=300, deadline=None)
def test_an_array_is_what_json_says_and_the_same_by_any_size_of_read(values, damage, sizes, plain):
    data = json.dumps(values, ensure_ascii=plain).encode()
    for at, mark in damage:
        data = data[:1] + data[1:at] + mark + data[at + 1 :]
    results = []
    for size in sizes:
        found = []
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(json_rows.BrokenArray):
            patch.setattr(json_rows, "_READ_BYTES", size)
            for _, value in json_rows.array(io.BufferedReader(io.BytesIO(data), 4), 1_000):
                found.append(value.reason if isinstance(value, RowReject) else value)
        results.append(found)
    assert results[0] == results[1]
    if not damage:
        assert results[0] == [value if isinstance(value, dict) else "not_an_object" for value in values]


def test_memory_for_an_array_is_constant(tmp_path):
    row = json.dumps({"text": "x" * 3_000})
    (tmp_path / "rows.json").write_text(f"[{','.join([row] * 4_000)}]")
    tracemalloc.start()
    try:
        assert sum(1 for _ in module.rows(tmp_path / "rows.json", print)) == 4_000
        assert tracemalloc.get_traced_memory()[1] < 4_500_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", PACK)
def test_a_bomb_is_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(module, "ALLOWED_BYTES", 100_000)
    path = tmp_path / f"rows.jsonl.{kind}"
    path.write_bytes(PACK[kind](GOOD + b"\n" + b" " * 4_000_000))
    with pytest.raises(InputError, match=r"rows\.jsonl\.\w+: refused: its first [\d,]+ bytes unpack to over \d"):
        read(path)


def test_blank_lines_have_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "MAX_BLANK_LINES", 100)
    path = tmp_path / "rows.jsonl"
    path.write_bytes((GOOD + b"\n" * 100) * 3)
    assert [number for number, _ in read(path)[0]] == [1, 101, 201]
    path.write_bytes(GOOD + b"\n" * 102)
    with pytest.raises(InputError, match=r"rows\.jsonl:102: over 100 blank lines"):
        read(path)
