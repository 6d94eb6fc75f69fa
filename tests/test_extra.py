"""`source.keep`: columns of the source are published as JSON, and stay through relabelling, appending and merging."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import open_dataset
from pipeline.cli.main import main
from pipeline.config.settings import CurationConfig
from pipeline.curate import curate, in_threads
from pipeline.dataset.verify import verify
from pipeline.run import shards
from pipeline.run.status import folder_state
from tests.conftest import Silent
from tests.test_schema_versions import made_by

PAIR = {
    "prompt": "Who?",
    "initial": "It is one of us.",
    "revised": "It is one of them.",
    "feedback": ["Wrong.", "Short."],
}
KEPT = {"domain": "general", "scores": [1, None, {"a": "\ud800é"}], "nothing": None}
# What JSON writes in more than one way.
ODD = {
    "scores": [2**60, 0.1, 1e-7, -0.0, 1e22],
    "domain": 'a "b"\\ \u2028\x00👩‍👩‍👧 e\u0301 é',
    "nothing": {"b": {}, "a": []},
}
EMPTY = {"domain": "", "scores": [], "nothing": False}
Settings = Callable[..., CurationConfig]


def clean(out: Path) -> pa.Table:
    """The rows of a data set in which verify finds nothing and of which status says that nothing is left to do."""
    assert main(["verify", str(out)]) == 0
    assert ([str(problem) for problem in verify(out).problems], folder_state(out).rerun) == ([], [])
    return open_dataset(out).to_table()


def kept(table: pa.Table) -> dict[str, bytes | None]:
    """The column `extra` by the row's id, as its bytes."""
    return dict(zip(table["id"].to_pylist(), table["extra"].cast(pa.binary()).to_pylist(), strict=True))


def pair(number: int, extra: dict[str, Any]) -> str:
    return json.dumps(PAIR | {"prompt": f"Who of {number}?"} | extra) + "\n"


@pytest.fixture
def build(settings: Settings, tmp_path: Path) -> Callable[..., Path]:
    """Makes or continues the data set `name` of these pairs of the source."""

    def make(name: str, numbers: range, *, keep: tuple[str, ...] = tuple(KEPT), **flags: Any) -> Path:
        extras = (KEPT, ODD, EMPTY, {})
        lines = [pair(number, extras[number % len(extras)]) for number in numbers]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines), "utf-8")
        source = {"name": "jsonl", "input": str(tmp_path / f"{name}.jsonl"), "keep": keep, "shard_rows": 4}
        shards.forget_contexts()
        curate(settings(out=name, **{f"source__{k}": v for k, v in source.items()}, **flags), in_threads, Silent())
        assert len(clean(tmp_path / name)) == len(numbers)
        return tmp_path / name

    return make


def test_kept_columns(settings: Callable[..., CurationConfig], tmp_path: Path) -> None:
    rows = [PAIR | KEPT, PAIR | {"prompt": "What?", "domain": float("nan")}, PAIR | {"prompt": "Hm?", "revised": " "}]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    kept = {"source__name": "jsonl", "source__input": str(tmp_path / "pairs.jsonl")}
    for out, names in (("plain", ()), ("kept", tuple(KEPT))):
        shards.forget_contexts()
        curate(settings(out=out, source__keep=names, **kept), in_threads, Silent())
    assert main(["relabel", str(tmp_path / "kept"), "--granularity", "word", "--out", str(tmp_path / "words")]) == 0
    for root in (tmp_path / "kept", tmp_path / "words"):
        first, second = pq.read_table(root / "data").to_pylist()
        assert json.loads(first["extra"]) == KEPT | {"scores": [1, None, {"a": "\ufffdé"}]}
        assert json.loads(second["extra"]) == dict.fromkeys(KEPT)
        assert (first["critique"], first["diagnosis"]) == ("Wrong.\nShort.", "other")
        assert [str(problem) for problem in verify(root).problems] == []
    assert open_dataset(tmp_path / "plain").to_table()["extra"].null_count == 2
    for root in (tmp_path / "plain", tmp_path / "kept"):
        assert main(["export", str(root), "--format", "spa", "--out", str(tmp_path / f"spa-{root.name}")]) == 0


def test_kept_columns_survive_appending_byte_for_byte(build: Callable[..., Path]) -> None:
    out = build("out", range(10))
    before, old = kept(clean(out)), open_dataset(out)
    # The last shard is half full; the next one is new.
    build("out", range(18))
    after = kept(clean(out))
    assert len(before) == 10 and len(after) == 18
    assert {name: after[name] for name in before} == before == kept(old.to_table())
    assert None not in after.values() and set(after.values()) == set(before.values())
    assert json.loads(list(after.values())[1] or b"") == {name: ODD[name] for name in KEPT}
    # As if all rows had been there at once.
    assert after == kept(clean(build("whole", range(18))))


def test_columns_that_are_kept_from_now_on_are_those_of_all_rows(build: Callable[..., Path]) -> None:
    out = build("out", range(6), keep=())
    assert set(kept(clean(out)).values()) == {None}
    build("out", range(10), keep=("domain",))
    assert [json.loads(value or b"") for value in kept(clean(out)).values()][:5] == [
        {"domain": KEPT["domain"]},
        {"domain": ODD["domain"]},
        {"domain": ""},
        {"domain": None},
        {"domain": KEPT["domain"]},
    ]


@pytest.mark.parametrize("keep", ["first", "last"])
@pytest.mark.parametrize("turned", [False, True])
def test_kept_columns_survive_merging_byte_for_byte(
    build: Callable[..., Path], tmp_path: Path, tiny_tokenizer: Path, keep: str, turned: bool
) -> None:
    """With a data set of other columns, and with one of none, of which rows are in both."""
    roots = [build("one", range(6)), build("two", range(4, 10), keep=("scores",)), build("none", range(8, 12), keep=())]
    roots = roots[::-1] if turned else roots
    out = tmp_path / "merged"
    assert main(["merge", *map(str, roots), "--keep", keep, "--out", str(out)]) == 0
    expected: dict[str, bytes | None] = {}
    for root in roots if keep == "last" else roots[::-1]:
        expected |= kept(clean(root))
    assert kept(clean(out)) == expected and len(expected) == 12
    assert {value is None for value in expected.values()} == {True, False}
    # In a second publication, with a data set whose files have no such column.
    older = made_by("1.0", tmp_path / "older", tiny_tokenizer)
    assert "extra" not in pq.read_schema(next((older / "data").iterdir())).names
    assert main(["merge", *map(str, [older, out] if turned else [out, older]), "--out", str(out)]) == 0
    assert kept(clean(out)) == expected | dict.fromkeys(open_dataset(older).to_table()["id"].to_pylist())
    assert main(["relabel", str(out), "--granularity", "word", "--out", str(tmp_path / "words")]) == 0
    assert kept(clean(tmp_path / "words")) == kept(clean(out))
