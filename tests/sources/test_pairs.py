"""Rows of one's own that bring an initial and a revised answer, and Parquet, which is read as JSON Lines are."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import sources
from pipeline.errors import ConfigError, RowReject
from tests.sources.resolving import resolve

USER = [{"role": "user", "content": "q"}]
PAIR = {"initial": "a", "revised": "b"}


def parse(raw, fields=None, name="jsonl"):
    adapter, _ = sources.bind(sources.get(name), fields or {}, [raw])
    assert adapter.gives_pairs
    row = adapter.parse(raw)
    return row.messages, row.reference, row.initial, row.revised


@pytest.mark.parametrize(
    ("raw", "reference"),
    [
        ({"prompt": "q", **PAIR}, "b"),
        ({"prompt": "q", "answer": "r", **PAIR}, "r"),
        ({"messages": USER, **PAIR}, "b"),
        ({"messages": USER, "reference": "r", **PAIR}, "r"),
        ({"messages": [*USER, {"role": "assistant", "content": "r"}], **PAIR}, "r"),
        ({"instruction": "q", "output": "r", "original_output": "a", "revised_output": "b"}, "r"),
    ],
)
def test_guessed(raw, reference):
    assert parse(raw) == (USER, reference, "a", "b")


def test_given():
    raw = {"ask": "q", "draft": "a", "final": "b"}
    assert parse(raw, {"prompt": "ask", "initial": "draft", "revised": "final"}) == (USER, "b", "a", "b")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": "p", "initial": "a"}, "needs source.fields.revised"),
        ({"messages": "m", "revised": "b"}, "needs source.fields.initial"),
        ({"transcript": "t", "rejected": "r", "initial": "a", "revised": "b"}, "not with transcript"),
    ],
)
def test_a_mapping_gives_both_or_none(fields, said):
    with pytest.raises(ConfigError, match=said):
        sources.bind(sources.get("jsonl"), fields, [])


def test_a_row_without_its_answers_is_rejected():
    adapter, _ = sources.bind(sources.get("jsonl"), {}, [{"prompt": "q", **PAIR}])
    for raw, reason in (
        ({"prompt": "q"}, "wrong_shape"),
        ({"prompt": "q", "initial": " ", "revised": "b"}, "empty_initial"),
        ({"prompt": "q", "initial": "a", "revised": ""}, "empty_revision"),
    ):
        with pytest.raises(RowReject) as caught:
            adapter.parse(raw)
        assert caught.value.reason == reason


def test_parquet_with_nested_columns_nulls_and_a_mapping(tmp_path):
    path = tmp_path / "rows.parquet"
    rows = [
        {"talk": [*USER, {"role": "assistant", "content": f"r{n}"}], "worse": None if n % 2 else "w"} for n in range(30)
    ]
    pq.write_table(pa.Table.from_pylist([*rows, {"talk": None}, {"talk": []}]), path)
    source = resolve("parquet", str(path))
    adapter, said = sources.bind(sources.get("parquet"), {"messages": "talk", "rejected": "worse"}, [])
    assert adapter.name == "parquet" and said == "fields given: messages = 'talk', rejected = 'worse'"
    good, bad = [], []
    for record in sources.records(source):
        try:
            good.append(adapter.parse(record.value))
        except RowReject as reject:
            bad.append(reject.reason)
    assert [(row.reference, row.rejected) for row in good] == [(f"r{n}", None if n % 2 else "w") for n in range(30)]
    assert bad == ["wrong_shape", "wrong_shape"]
