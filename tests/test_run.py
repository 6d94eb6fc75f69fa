"""The whole run, against a loopback server: accounting, published columns, resume, what re-runs what."""

from __future__ import annotations

import itertools
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import resources, schema
from pipeline.cli.main import main
from pipeline.config.settings import CurationConfig
from pipeline.curate import Outcome, curate, in_threads
from pipeline.errors import StorageError, UsageError
from pipeline.run import shards
from pipeline.storage.lock import run_lock
from tests.conftest import Silent

Settings = Callable[..., CurationConfig]


def run(config: CurationConfig) -> Outcome:
    shards.forget_contexts()
    return curate(config, in_threads, Silent())


def files(out: Path) -> dict[str, bytes]:
    """Everything published, by path."""
    paths = [*out.glob("data/*"), *out.glob("rejected/*"), out / "manifest.json", out / "README.md"]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def stage_times(out: Path) -> dict[str, int]:
    return {p.parent.name + "/" + p.name: p.stat().st_mtime_ns for p in (out / "work").glob("*/0*.arrow")}


def test_every_row_is_published_or_rejected_with_a_reason(settings: Settings) -> None:
    # The embedded reward thinks little of the scripted texts, so it alone does not choose.
    outcome = run(settings(selection__eta2="off", selection__eta3=-10.0))
    rows = outcome.manifest["rows"]
    assert rows["read"] == 40 and rows["published"] >= 5
    assert rows["read"] == rows["published"] + rows["rejected"]
    rejected = pa.concat_tables([pq.read_table(p) for p in sorted((outcome.out / "rejected").glob("*.parquet"))])
    published = pq.read_table(outcome.out / "data")
    assert rejected.num_rows == rows["rejected"] and published.num_rows == rows["published"]
    ids = published["id"].to_pylist() + rejected["id"].to_pylist()
    assert len(set(ids)) == 40
    assert all(stage in schema.STAGES for stage in rejected["stage"].to_pylist())
    assert all(rejected["reason"].to_pylist())
    assert all(isinstance(json.loads(text), dict) for text in rejected["evidence"].to_pylist())
    steps = outcome.manifest["funnel"]
    assert [step["stage"] for step in steps] == list(schema.STAGES)
    for before, after in itertools.pairwise(steps):
        assert before["out"] == after["in"]
    assert all(step["in"] - step["out"] == sum(step["rejected"].values()) for step in steps)


def test_published_columns_are_the_contract(settings: Settings) -> None:
    outcome = run(settings())
    file = next((outcome.out / "data").glob("*.parquet"))
    with pq.ParquetFile(file) as opened:
        table = opened.read()
    assert table.schema.remove_metadata().equals(schema.PUBLISHED)
    metadata = table.schema.metadata
    labels = json.loads(metadata[b"figa.labels"])
    assert metadata[b"figa.schema_version"] == schema.SCHEMA_VERSION.encode()
    assert (labels["alpha"], labels["beta"], labels["gate"]) == (1.0, 0.5, 0.6) and labels["fingerprint"]
    tokenizer = outcome.context.tokenizer  # type: ignore[union-attr]
    for row in table.to_pylist():
        check_row(row, tokenizer)


def check_row(row: dict[str, Any], tokenizer: Any) -> None:
    assert row["messages"][-1]["role"] == "user"
    assert 0 < row["edit_distance"] <= 0.8
    prompt = len(row["prompt_input_ids"])
    for side, text in (("revised", row["revised"]), ("initial", row["initial"])):
        lists = [row[f"{side}_{name}"] for name in ("input_ids", "labels", "weights", "ops")]
        ids, labels, weights, ops = lists
        assert len({len(part) for part in lists}) == 1
        assert ids[:prompt] == row["prompt_input_ids"]
        assert tokenizer.decode(ids) == tokenizer.render(row["messages"]) + text + "<|im_end|>"
        assert labels == [-100] * prompt + ids[prompt:]
        assert set(ops[:prompt]) == {-1} and set(weights[:prompt]) == {0.0}
        edited = {i for i, op in enumerate(ops) if op > 0}
        expected = dict.fromkeys(edited, 1.0 if side == "revised" else -0.5)
        if side == "revised":
            expected[len(ids) - 1] = 1.0
        assert {i: w for i, w in enumerate(weights) if w} == expected


def test_a_second_identical_run_does_nothing(settings: Settings) -> None:
    first = run(settings())
    calls, bytes_before = len(settings.server.calls), files(first.out)  # type: ignore[attr-defined]
    second = run(settings())
    assert second.already_done and second.calls == 0
    assert len(settings.server.calls) == calls  # type: ignore[attr-defined]
    assert files(second.out) == bytes_before


def test_a_changed_prompt_reruns_from_revise_on(settings: Settings, tmp_path: Path) -> None:
    first = run(settings())
    before = stage_times(first.out)
    prompts = tmp_path / "prompts"
    shutil.copytree(resources.folder("prompts"), prompts)
    for path in prompts.glob("revise_*.md"):
        path.write_text(path.read_text("utf-8") + "\nKeep it short.\n", "utf-8")
    second = run(settings(reviser__prompts=str(prompts)))
    after = stage_times(second.out)
    redone = {name.split("/")[0] for name in after if after[name] != before.get(name)}
    # Stages behind `revise` run again only for shards whose revisions came out different.
    assert "revise" in redone and redone <= {"revise", "filter", "label"}
    asked = [call for call in settings.server.calls if call.model == "policy"]  # type: ignore[attr-defined]
    assert len(asked) == 41, "the probe and each row"


def test_a_tokenizer_that_changed_in_its_folder_reruns_from_filter_on(
    settings: Settings, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_tokenizer, tmp_path / "tokenizer")
    first = run(settings(labels__tokenizer=str(folder)))
    calls = len(settings.server.calls)  # type: ignore[attr-defined]
    template = folder / "chat_template.jinja"
    template.write_text(f"A chat. {template.read_text('utf-8')}", "utf-8")
    second = run(settings(labels__tokenizer=str(folder)))
    assert not second.already_done and len(settings.server.calls) == calls  # type: ignore[attr-defined]
    assert first.manifest["labels"]["fingerprint"] != second.manifest["labels"]["fingerprint"]


def test_operational_settings_rerun_nothing(settings: Settings) -> None:
    first = run(settings())
    before = stage_times(first.out)
    second = run(settings(policy__concurrency=3, reviser__timeout_s=30, run__workers=1, reward__batch_size=2))
    assert second.already_done and stage_times(first.out) == before


def test_concurrency_and_workers_give_the_same_bytes(settings: Settings) -> None:
    one = run(settings("one", policy__concurrency=1, reviser__concurrency=1, run__workers=1))
    many = run(settings("many", policy__concurrency=32, reviser__concurrency=32, run__workers=4))
    assert files(one.out) == files(many.out)


def test_nothing_survives_is_a_valid_empty_data_set(settings: Settings) -> None:
    outcome = run(settings(selection__eta1=-1000))
    assert outcome.manifest["rows"] == {"read": 40, "published": 0, "rejected": 40}
    table = pq.read_table(outcome.out / "data")
    assert table.num_rows == 0 and table.schema.names == schema.PUBLISHED.names


def test_a_damaged_published_file_is_made_again(settings: Settings) -> None:
    first = run(settings())
    good = files(first.out)
    path = next((first.out / "data").glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-100])
    second = run(settings())
    assert not second.already_done and second.calls == 0
    assert files(second.out) == good


def test_a_second_run_in_the_folder_is_refused(settings: Settings) -> None:
    config = settings()
    with run_lock(config.out, print), pytest.raises(StorageError, match="in use by process"):
        run(config)
    assert not settings.server.calls  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["manifest.json", "work/run.json"])
def test_a_folder_of_a_newer_version_is_refused_before_any_call(settings: Settings, name: str) -> None:
    config = settings()
    run(config)
    path = config.out / name
    path.write_text(
        json.dumps(json.loads(path.read_text("utf-8")) | {"schema_version": "1.99", "version": "9.0"}), "utf-8"
    )
    before, calls = files(config.out), len(settings.server.calls)  # type: ignore[attr-defined]
    with pytest.raises(
        UsageError, match=r"written by figa-pipeline 9.0 with schema version 1.99.* choose another --out"
    ):
        run(settings(policy__temperature=0.9))
    assert files(config.out) == before and len(settings.server.calls) == calls  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "reader"),
    [("source/00001", "sample"), ("score/00001", "select"), ("select/00001.rejects", ""), ("label/00000", "")],
)
def test_a_damaged_stage_file_is_named_and_made_again_by_the_next_run(
    settings: Settings, name: str, reader: str
) -> None:
    expected = files(run(settings("clean", filter__max_distance=0.7)).out)
    config = settings()
    run(config)
    path = config.out / "work" / f"{name}.arrow"
    raw = path.read_bytes()
    path.write_bytes(raw[:200] + bytes([raw[200] ^ 1]) + raw[201:])
    # What isn't read any more may be as damaged as it likes. Publishing reads rejects, and what the last stage made.
    (config.out / "work" / reader / "00001.json").unlink(missing_ok=True)
    (config.out / "manifest.json").unlink()
    changed = settings(filter__max_distance=0.7)
    calls = len(settings.server.calls)  # type: ignore[attr-defined]
    with pytest.raises(StorageError, match=rf"{path.name}: damaged .*; run again, it will be rebuilt"):
        run(changed)
    run(changed)
    assert files(config.out) == expected and len(settings.server.calls) == calls  # type: ignore[attr-defined]


def test_bad_rows_among_good_ones_are_rejects(settings: Settings, rows_file: Path) -> None:
    lines = rows_file.read_text("utf-8").splitlines()
    lines[3] = '{"chosen": 5}'
    lines[7] = "not json"
    lines[9] = lines[8]
    rows_file.write_text("\n".join(lines) + "\n", "utf-8")
    outcome = run(settings())
    source = outcome.manifest["funnel"][0]
    assert sum(source["rejected"].values()) == 3
    assert outcome.manifest["rows"]["read"] == 40
    table = pq.read_table(outcome.out / "rejected" / "source.parquet")
    where = [json.loads(text)["where"] for text in table["evidence"].to_pylist()]
    assert [int(w.rsplit(":", 1)[1]) for w in where] == [4, 8, 10]
    assert "duplicate_query" in table["reason"].to_pylist()


def test_what_became_of_edits_is_in_the_manifest_also_after_a_resume(settings: Settings) -> None:
    first = run(settings(reviser__style="edits"))
    step = next(step for step in first.manifest["funnel"] if step["stage"] == "revise")
    assert step["notes"]["edits_applied"] >= step["out"] > 0
    again = run(settings(reviser__style="edits", filter__max_distance=0.7))
    assert next(step for step in again.manifest["funnel"] if step["stage"] == "revise") == step
    assert again.calls == 0
    rewritten = run(settings("rewritten"))
    assert not any("notes" in step for step in rewritten.manifest["funnel"])


def test_several_answers_a_query_and_the_worst_goes_on(settings: Settings) -> None:
    several = {"policy__samples": 3, "source__limit": 10, "policy__temperature": 0.7}
    outcome = run(settings(policy__pick="worst", **several))
    rows = outcome.manifest["rows"]
    steps = {step["stage"]: step for step in outcome.manifest["funnel"]}
    queries = steps["source"]["out"] // 3
    assert rows["read"] == rows["published"] + rows["rejected"]
    assert steps["sample"]["in"] == 3 * queries and steps["select"]["in"] > queries
    rejected = pa.concat_tables([pq.read_table(p) for p in sorted((outcome.out / "rejected").glob("*.parquet"))])
    published = pq.read_table(outcome.out / "data")
    assert len({*published["id"].to_pylist(), *rejected["id"].to_pylist()}) == rows["read"]
    left = rejected.filter(pa.compute.equal(rejected["reason"], "not_picked")).to_pylist()
    assert len(left) == steps["select"]["rejected"]["not_picked"] == steps["select"]["in"] - queries
    assert all(json.loads(row["evidence"])["reward_picked"] <= row["reward_initial"] for row in left)
    assert main(["verify", str(outcome.out)]) == 0
    # No answer is asked for again when another one is picked, and each is named as with one sample.
    calls = dict(outcome.manifest["calls"])
    again = run(settings(policy__pick="best", **several))
    assert again.manifest["calls"]["sample"] == calls["sample"]
    one = run(settings("one", **several | {"policy__samples": 1}))
    firsts = {row["id"] for row in rejected.to_pylist() if row["sample_index"] == 0} | set(published["id"].to_pylist())
    alone = [*one.out.glob("data/*"), *one.out.glob("rejected/*")]
    assert {name for path in alone for name in pq.read_table(path, columns=["id"])["id"].to_pylist()} <= firsts


def test_the_first_failure_stops_the_rest_whichever_shard_it_is(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = threading.Event()
    begun: list[int] = []

    def work(config: CurationConfig, shard: int, *_: Any) -> None:
        begun.append(shard)
        if shard == 1:
            raise StorageError("no space")
        assert held.wait(20)

    config = settings(run__workers=2)
    monkeypatch.setattr("pipeline.curate.run_stages", work)
    # What is at work ends when it is told to; here that comes with the failure.
    monkeypatch.setattr("pipeline.curate.event_loop.cancel_all", held.set)
    monkeypatch.setattr("pipeline.curate.context_of", lambda config: SimpleNamespace(stopped=threading.Event()))
    with pytest.raises(StorageError, match="no space"):
        in_threads(config, 20, ("sample",), None)
    assert len(begun) < 20
