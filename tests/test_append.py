"""A data set that grows: only what is new is made and paid, as a new publication that disturbs no reader of the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pipeline
from pipeline.config.settings import CurationConfig
from pipeline.curate import Outcome, curate, in_threads
from pipeline.run import shards
from tests.conftest import Silent

Settings = Callable[..., CurationConfig]
OFF = {f"selection__eta{i}": "off" for i in (1, 2, 3)}


def run(config: CurationConfig) -> Outcome:
    shards.forget_contexts()
    return curate(config, in_threads, Silent())


def calls(settings: Settings) -> list[str]:
    """What each call so far was made for; every one is another."""
    keys = [call.key for call in settings.server.calls]  # type: ignore[attr-defined]
    assert len(keys) == len(set(keys)), "no call was made twice"
    return keys


def stages(out: Path) -> dict[str, int]:
    return {f"{p.parent.name}/{p.name}": p.stat().st_mtime_ns for p in (out / "work").glob("*/0*.arrow")}


@contextmanager
def undisturbed(out: Path) -> Iterator[None]:
    """Reads half of a data set, lets it be published anew, and reads on."""
    pairs = pipeline.open_dataset(out)
    texts = pairs.to_table(["revised"])["revised"].to_pylist()
    half = pairs.iter_batches(1, columns=["revised"])
    read = [batch["revised"][0] for _, batch in zip(range(len(texts) // 2), half, strict=False)]
    yield
    assert read + [batch["revised"][0] for batch in half] == texts
    assert pairs.to_table(["revised"])["revised"].to_pylist() == texts
    other = pipeline.open_dataset(out)
    assert other.manifest["publication"] == pairs.manifest["publication"] + 1 and len(other) > len(texts)


def test_a_raised_limit_makes_only_its_new_shards(settings: Settings) -> None:
    first = run(settings(source__limit=16, **OFF))
    asked, before = len(calls(settings)), stages(first.out)
    with undisturbed(first.out):
        second = run(settings(source__limit=32, **OFF))
    after = stages(second.out)
    # The plan reads the source anew, and finds the same rows.
    assert not {name for name in before if after[name] != before[name] and not name.startswith("source/")}
    assert second.manifest["rows"]["read"] == 32 and asked < len(calls(settings)) <= 2 * asked + 6
    assert run(settings(source__limit=32, **OFF)).already_done


def test_a_file_that_got_more_lines_makes_only_its_new_rows(settings: Settings, rows_file: Path) -> None:
    lines = rows_file.read_text("utf-8").splitlines(keepends=True)
    rows_file.write_text("".join(lines[:24]), "utf-8")
    first = run(settings(**OFF))
    before = stages(first.out)
    calls(settings)
    rows_file.write_text("".join(lines), "utf-8")
    with undisturbed(first.out):
        second = run(settings(**OFF))
    after = stages(second.out)
    redone = {name for name in before if after[name] != before[name] and not name.startswith("source/")}
    # The last shard was half full; the answers to its old rows are in the journal.
    assert redone and all(name.split("/")[1].startswith("00001") for name in redone)
    assert second.manifest["rows"]["read"] == 40
    assert sum(call.model == "policy" for call in settings.server.calls) == 41  # type: ignore[attr-defined]
    calls(settings)


def test_a_folder_with_a_further_file_pays_for_its_rows_alone(
    settings: Settings, rows_file: Path, tmp_path: Path
) -> None:
    lines = rows_file.read_text("utf-8").splitlines(keepends=True)
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "b.jsonl").write_text("".join(lines[:16]), "utf-8")
    first = run(settings(source__input=str(folder), **OFF))
    before = stages(first.out)
    (folder / "c.jsonl").write_text("".join(lines[16:32]), "utf-8")
    with undisturbed(first.out):
        second = run(settings(source__input=str(folder), **OFF))
    after = stages(second.out)
    assert not {name for name in before if after[name] != before[name] and not name.startswith("source/")}
    assert second.manifest["rows"]["read"] == 32
    # One that comes first in the order shifts all rows: shards are made again, but of answers that are paid.
    (folder / "a.jsonl").write_text("".join(lines[32:]), "utf-8")
    with undisturbed(second.out):
        third = run(settings(source__input=str(folder), **OFF))
    assert third.manifest["rows"]["read"] == 40
    assert sum(call.model == "policy" for call in settings.server.calls) == 41  # type: ignore[attr-defined]
    calls(settings)


def test_quantiles_are_those_of_all_rows_and_pay_for_what_they_newly_select(settings: Settings) -> None:
    """Default thresholds are quantiles: more rows move them, so `select` runs again, and `revise` where it chose others."""
    first = run(settings(source__limit=16))
    before = stages(first.out)
    second = run(settings(source__limit=40))
    assert first.manifest["thresholds"] != second.manifest["thresholds"]
    after = stages(second.out)
    redone = {name.split("/")[0] for name in before if after[name] != before[name]}
    assert "select" in redone and not redone & {"sample", "score"}
    calls(settings)
    # The same data set as one that was made at once.
    whole = run(settings("whole", source__limit=40))
    for one, other in zip(whole.manifest["files"], second.manifest["files"], strict=True):
        assert one["sha256"] == other["sha256"]
    assert whole.manifest["thresholds"] == second.manifest["thresholds"]
