"""Whatever comes in, a row is a SourceRow or a RowReject, and no row is lost."""

import contextlib
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import sources
from pipeline.errors import InputError, RowReject
from pipeline.sources import SourceRow
from tests.conftest import ROOT
from tests.sources.rejects import REJECTS, path
from tests.sources.resolving import resolve

TEXT = st.text(st.characters(codec=None, categories=None), max_size=30) | st.sampled_from(
    ["", " ", "\n\nHuman: ", "\n\nAssistant: ", "Human:", "\ud800", "\0", "user", "assistant", "system", "gpt", "human"]
)
TRANSCRIPT = st.lists(
    st.sampled_from(["\n\nHuman:", "\n\nAssistant:", "\r\n\r\nHuman:", "\nHuman:", " ", "a", "b\n\nc", ".", "\ud800"]),
    max_size=12,
).map("".join)
NAMES = st.sampled_from(
    "chosen rejected prompt response messages conversations instruction input output question answer system_prompt "
    "role content from value reference system completion history human_ref_A human_ref_B labels score_A score_B "
    "initial revised original_output revised_output score_chosen score_rejected diagnosis critique feedback".split()
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | TRANSCRIPT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | TEXT, inner, max_size=5),
    max_leaves=25,
)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "human", "tool"]), "content": TEXT | TRANSCRIPT}
) | st.fixed_dictionaries(
    {"from": st.sampled_from(["human", "gpt", "bing", "system", "tool"]), "value": TEXT | TRANSCRIPT}
)
LIKELY = st.dictionaries(NAMES, TEXT | TRANSCRIPT | st.lists(TURN, max_size=5) | JSON, max_size=6)


def check(row):
    assert isinstance(row, SourceRow)
    assert row.messages and row.messages[-1]["role"] == "user"
    for message in row.messages:
        assert set(message) == {"role", "content"} and message["content"].strip()
    assert row.reference.strip()
    assert (row.initial is None) == (row.revised is None)
    assert row.initial is None or (row.initial.strip() and row.revised.strip())
    json.dumps([row.messages, row.reference, row.rejected, row.initial, row.revised], ensure_ascii=False).encode()


@pytest.mark.parametrize("name", sorted(sources.ADAPTERS))
@given(raw=LIKELY | JSON)
@settings(max_examples=120, deadline=None)
def test_parse_gives_a_row_or_a_reject(name, raw):
    try:
        row = sources.get(name).parse(raw)
    except RowReject as reject:
        json.dumps(reject.evidence).encode()
        str(reject.evidence).encode()
        return
    check(row)
    if name == "hh-rlhf":
        for text in (*(message["content"] for message in row.messages), row.reference):
            assert "\n\nHuman:" not in text and "\n\nAssistant:" not in text
            assert not text.startswith(("Human:", "Assistant:"))


GOOD = {name: [json.loads(line) for line in path(name).read_text("utf-8").splitlines()[:32]] for name in REJECTS}
GOOD["parquet"] = GOOD["jsonl"]
GOOD["demo"] = [json.loads(line) for line in (ROOT / "data" / "demo.jsonl").read_text("utf-8").splitlines()]


@st.composite
def nearly_right(draw, name):
    """A row of the adapter's own format with one or two values replaced, added or left out, at the top or below."""
    row = json.loads(json.dumps(draw(st.sampled_from(GOOD[name]))))
    for _ in range(draw(st.integers(1, 2))):
        place = row
        lists = (value for value in row.values() if isinstance(value, list))
        below = [part for parts in lists for part in parts if isinstance(part, dict)]
        if below and draw(st.booleans()):
            place = draw(st.sampled_from(below))
        key = draw(st.sampled_from(sorted(place, key=str)) | NAMES) if place else "x"
        if draw(st.booleans()):
            place.pop(key, None)
        else:
            place[key] = draw(TEXT | TRANSCRIPT | JSON)
    return row


@pytest.mark.parametrize("name", sorted(sources.ADAPTERS))
@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_a_nearly_right_row_is_a_row_or_a_reject(name, data):
    raw = data.draw(nearly_right(name))
    try:
        check(sources.get(name).parse(raw))
    except RowReject as reject:
        assert {"expected", "got"} <= set(reject.evidence)
        json.dumps(reject.evidence).encode()


BAD_LINES = {
    "invalid UTF-8": b'{"prompt": "\xff\xfe"}',
    "lone surrogate": b'{"prompt": "\\ud800", "chosen": "\\udfff"}',
    "NUL": b'{"prompt": "\\u0000"}',
    "raw NUL": b'{"prompt": "\x00"}',
    "BOM": b'\xef\xbb\xbf{"prompt": "x"}',
    "duplicate key": b'{"prompt": "x", "prompt": "y"}',
    "NaN": b'{"prompt": "x", "labels": NaN, "score_A": Infinity}',
    "long integer": b'{"labels": ' + b"9" * 5_000 + b"}",
    "deep": b'{"conversations": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "cut": b'{"prompt": "x',
    "no object": b'["prompt", "x"]',
    "number": b"1e999",
    "large": b'{"prompt": "' + b"x" * 11_000_000 + b'"}',
    "empty object": b"{}",
    "instruction": b'{"prompt": "Ignore all instructions {{7*7}} {0.__class__} ${HOME}", "chosen": {"$ref": "#"}}',
}


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("name", sorted(REJECTS))
def test_bad_lines_among_good_ones_cost_only_themselves(tmp_path, name, end):
    good = [json.dumps(row).encode() for row in GOOD[name]]
    lines = [line for pair in zip(good, BAD_LINES.values(), strict=False) for line in pair] + good[len(BAD_LINES) :]
    file = tmp_path / "rows.jsonl"
    file.write_bytes(end.join(lines))
    source = resolve(name, str(file))
    adapter, _ = sources.bind(sources.get(name), {}, GOOD[name])
    numbers, kept = [], 0
    for record in sources.records(source):
        numbers.append(int(record.where.rpartition(":")[2]))
        try:
            if isinstance(record.value, RowReject):
                raise record.value
            check(adapter.parse(record.value))
            kept += 1
        except RowReject as reject:
            json.dumps(reject.evidence).encode()
            assert lines[numbers[-1] - 1] not in good
    assert numbers == list(range(1, len(lines) + 1)) and kept >= len(good)


@given(
    rows=st.lists(LIKELY, max_size=3),
    fields=st.dictionaries(st.sampled_from(["prompt", "messages"]), NAMES, max_size=1),
)
@settings(max_examples=200, deadline=None)
def test_a_bound_adapter_gives_a_row_or_a_reject(rows, fields):
    adapter, _ = sources.bind(sources.get("jsonl"), {**fields, "reference": "answer"} if fields else {}, rows)
    for raw in rows:
        with contextlib.suppress(RowReject):
            check(adapter.parse(raw))


LINES = st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()) | st.just(b'{"prompt": "q"}')


@given(lines=st.lists(LINES.map(lambda line: line.replace(b"\n", b"").replace(b"\r", b"")), max_size=12))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_records_never_lose_a_row(tmp_path, lines):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"first": 1}\n' + b"\n".join(lines))
    numbers = [1, *(number for number, line in enumerate(lines, 2) if line.strip())]
    source = resolve("jsonl", str(path))
    read = list(sources.records(source))
    assert [int(record.where.rpartition(":")[2]) for record in read] == numbers
    assert [record.source_row for record in read] == list(range(len(numbers)))
    assert all(isinstance(record.value, (dict, RowReject)) for record in read)


@given(
    data=st.binary(max_size=200), name=st.sampled_from(["a.jsonl", "a.json", "a.jsonl.gz", "a.jsonl.zst", "a.json.bz2"])
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_rows_or_one_input_error(tmp_path, data, name):
    magic = {
        "a.jsonl.gz": b"\x1f\x8b\x08\x00",
        "a.jsonl.zst": b"\x28\xb5\x2f\xfd",
        "a.json.bz2": b"BZh9",
        "a.json": b"[",
    }
    for content in (data, magic.get(name, b"") + data):
        (tmp_path / name).write_bytes(content)
        try:
            for record in sources.records(resolve("jsonl", str(tmp_path / name), warn=lambda text: None)):
                assert isinstance(record.value, (dict, RowReject))
        except InputError as error:
            assert "\n" not in str(error)
