"""Data sets of older schema versions open, verify, show, relabel, and merge with new ones."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import open_dataset, schema
from pipeline.cli.main import main
from pipeline.dataset import manifest
from pipeline.dataset.verify import verify
from tests import pairs


def made_by(version: str, out: Path, tokenizer: Path, **options: int) -> Path:
    """A data set as a program of that schema version would have published it."""
    pairs.data_set(out, tokenizer, 20, **options)
    content = manifest.load(out)
    assert content is not None
    columns = schema.published_columns(version).names
    for entry in content["files"]:
        table = pq.read_table(out / entry["path"])
        metadata = table.schema.metadata | {b"figa.schema_version": version.encode()}
        pq.write_table(table.select(columns).replace_schema_metadata(metadata), out / entry["path"])
        entry.update(manifest.file_entry(out, out / entry["path"], entry["rows"]))
    manifest.write(out, json.loads(json.dumps(content | {"schema_version": version})))
    return out


@pytest.fixture(params=["1.0", "1.1"])
def old(request: pytest.FixtureRequest, tiny_tokenizer: Path, tmp_path: Path) -> Path:
    return made_by(request.param, tmp_path / "old", tiny_tokenizer)


def test_it_opens_verifies_and_is_shown(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "critique" not in open_dataset(old).schema.names
    assert [str(problem) for problem in verify(old).problems] == []
    assert main(["show", str(old)]) == 0 and main(["show", str(old), "--limit", "0"]) == 0
    assert main(["report", str(old)]) == 0
    assert main(["show", str(old), "--where", "critique~x"]) == 2
    assert "no field 'critique'" in capsys.readouterr().err


def test_it_is_relabelled_in_the_new_version(old: Path, tmp_path: Path) -> None:
    assert main(["relabel", str(old), "--granularity", "word", "--out", str(tmp_path / "new")]) == 0
    table = open_dataset(tmp_path / "new").to_table()
    assert table.schema.remove_metadata().equals(schema.PUBLISHED)
    assert all(
        table[name].null_count == table.num_rows == 20
        for name in ("critique", "initial_reasoning", "extra", "initial_logprobs")
    )
    assert set(table["overlong"].to_pylist()) == {False}
    assert verify(tmp_path / "new").count == 0


def test_it_merges_with_a_new_one(old: Path, tiny_tokenizer: Path, tmp_path: Path) -> None:
    new = pairs.data_set(tmp_path / "new", tiny_tokenizer, 20, seed=1)
    for number, roots in enumerate(([old, new], [new, old])):
        out = tmp_path / f"merged{number}"
        assert main(["merge", *map(str, roots), "--out", str(out)]) == 0
        assert [str(problem) for problem in verify(out).problems] == []
        table = open_dataset(out).to_table()
        assert table.schema.remove_metadata().equals(schema.PUBLISHED) and table.num_rows == 40
        assert set(table["overlong"].to_pylist()) == {False}


def test_nothing_else_is_completed() -> None:
    table = pa.table({"id": ["a"]})
    assert schema.complete(table).column_names == ["id", *schema.SINCE]
