"""Whatever comes in, a row is a SourceRow or a RowReject, and no row is lost."""

import contextlib
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import sources
from pipeline.errors import InputError, RowReject
from pipeline.sources import SourceRow

TEXT = st.text(st.characters(codec=None, categories=None), max_size=30) | st.sampled_from(
    ["", " ", "\n\nHuman: ", "\n\nAssistant: ", "Human:", "\ud800", "\0", "user", "assistant", "system", "gpt", "human"]
)
TRANSCRIPT = st.lists(
    st.sampled_from(["\n\nHuman:", "\n\nAssistant:", "\r\n\r\nHuman:", "\nHuman:", " ", "a", "b\n\nc", ".", "\ud800"]),
    max_size=12,
).map("".join)
NAMES = st.sampled_from(
    "chosen rejected prompt response messages conversations instruction input output question answer system_prompt "
    "role content from value reference system completion".split()
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | TRANSCRIPT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | TEXT, inner, max_size=5),
    max_leaves=25,
)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "human", "tool"]), "content": TEXT | TRANSCRIPT}
)
LIKELY = st.dictionaries(NAMES, TEXT | TRANSCRIPT | st.lists(TURN, max_size=5) | JSON, max_size=6)


def check(row):
    assert isinstance(row, SourceRow)
    assert row.messages and row.messages[-1]["role"] == "user"
    for message in row.messages:
        assert set(message) == {"role", "content"} and message["content"].strip()
    assert row.reference.strip()
    json.dumps([row.messages, row.reference, row.rejected], ensure_ascii=False).encode()


@pytest.mark.parametrize("name", sorted(sources.ADAPTERS))
@given(raw=LIKELY | JSON)
@settings(max_examples=400, deadline=None)
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
    source = sources.resolve("jsonl", str(path), warn=print)
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
            for record in sources.records(sources.resolve("jsonl", str(tmp_path / name), warn=lambda text: None)):
                assert isinstance(record.value, (dict, RowReject))
        except InputError as error:
            assert "\n" not in str(error)
