"""What a folder's status tells, in every state of a run, and without a call."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import parts, shards
from pipeline.config import CurationConfig
from pipeline.curate import curate, in_threads
from pipeline.status import main, status
from tests.conftest import Silent

Settings = Callable[..., CurationConfig]


@pytest.fixture
def done(settings: Settings) -> CurationConfig:
    shards._context.cache_clear()
    config = settings()
    curate(config, in_threads, Silent())
    return config


def test_a_finished_run_has_nothing_to_do(done: CurationConfig, capsys: pytest.CaptureFixture[str]) -> None:
    found = status(done.out, parts.by_stage(done))
    assert (found.shards, found.rerun, found.problems) == (3, [], [])
    assert all(stage.done == 3 and not stage.stale for stage in found.stages)
    assert found.stages[0].rows == 40 and found.calls["sample"] == 40
    assert main([str(done.out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["published"] == found.published and told["rerun"] == []


def test_a_changed_setting_is_named_where_it_counts(done: CurationConfig, settings: Settings) -> None:
    found = status(done.out, parts.by_stage(settings(reviser__temperature=0.5, policy__concurrency=3)))
    assert {stage.stage: stage.stale for stage in found.stages if stage.stale} == {"revise": 3}
    assert found.rerun == ["revise: make 3 shards again: reviser.temperature changed"]


def test_another_input_makes_the_next_stage_stale(done: CurationConfig) -> None:
    facts = done.out / "work" / "select" / "00001.json"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"content": "f" * 64}))
    assert status(done.out).rerun == ["revise: make 1 shards again: input changed"]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("work/score/00002.json", "score: make 1 of 3"),
        ("work/plan.json", "plan.json: damaged"),
        ("manifest.json", "not readable"),
        ("work/journal.db", "journal can't be read"),
        ("data/train-00000-of-00001.parquet", "missing or not of the size"),
    ],
)
def test_what_is_broken_is_named(
    done: CurationConfig, path: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (done.out / path).write_bytes(b"{broken")
    for extra in ("-wal", "-shm"):
        (done.out / "work" / f"journal.db{extra}").unlink(missing_ok=True)
    assert main([str(done.out)]) == 0
    assert told in capsys.readouterr().out


def test_states_before_the_end(done: CurationConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (done.out / "manifest.json").unlink()
    assert status(done.out).rerun == ["publish: all shards are done, and no manifest stands"]
    shutil.rmtree(done.out / "work" / "label")
    assert status(done.out).rerun == ["label: make 3 of 3 shards that are missing or damaged"]
    (tmp_path / "empty").mkdir()
    assert status(tmp_path / "empty").rerun == ["plan the source and run every stage: there is no plan yet"]
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err
