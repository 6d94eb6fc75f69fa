"""Every source's fixture: each line is a row or a reject with the reason that is written down for it."""

import importlib

import pytest

from pipeline import sources
from pipeline.config.values import SOURCE_NAMES
from pipeline.errors import RowReject
from tests.sources.rejects import REJECTS, path
from tests.sources.resolving import resolve


def read(name, file):
    """(line, row or reason) of every record."""
    source = resolve(name, str(file))
    values = (record.value for record in sources.records(source) if isinstance(record.value, dict))
    adapter, _ = sources.bind(sources.get(name), {}, values)
    for record in sources.records(source):
        try:
            if isinstance(record.value, RowReject):
                raise record.value
            yield int(record.where.rpartition(":")[2]), adapter.parse(record.value)
        except RowReject as reject:
            assert {"expected", "got"} <= set(reject.evidence), reject.reason
            yield int(record.where.rpartition(":")[2]), reject.reason


def test_every_source_has_a_fixture():
    without = {"parquet", "demo"}  # read as jsonl is, its test writes its file; the other has its own file alone
    assert set(REJECTS) == set(sources.ADAPTERS) - without


@pytest.mark.parametrize("name", REJECTS)
def test_each_line_is_a_row_or_the_reject_that_it_should_be(name):
    lines = [number for number, line in enumerate(path(name).read_text("utf-8").splitlines(), 1) if line]
    found = dict(read(name, path(name)))
    assert list(found) == lines and len(lines) >= 30
    assert {line: result for line, result in found.items() if isinstance(result, str)} == REJECTS[name]
    for row in (result for result in found.values() if not isinstance(result, str)):
        assert row.messages[-1]["role"] == "user" and row.reference.strip()
        assert (row.initial is None) == (row.revised is None) == (not sources.get(name).gives_pairs)


@pytest.mark.parametrize("name", sorted(sources.ADAPTERS))
def test_an_adapter_says_what_it_is_of(name):
    adapter = sources.get(name)
    assert adapter.name == name and adapter.expected
    assert (adapter.hub_id is None) == (name in ("jsonl", "parquet", "demo"))
    if adapter.hub_id:
        module = importlib.import_module(f"pipeline.sources.adapters.{name.replace('-', '_')}")
        assert f"https://huggingface.co/datasets/{adapter.hub_id} " in str(module.__doc__) and adapter.licence


def test_settings_know_the_adapters():
    assert list(sources.ADAPTERS) == SOURCE_NAMES
