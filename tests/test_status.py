"""What a folder's status tells, in every state of a run, and without a call."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli.main import main
from pipeline.config.settings import CurationConfig
from pipeline.curate import curate, in_threads
from pipeline.dataset import manifest
from pipeline.run import record, shards
from pipeline.run.status import folder_state
from tests.conftest import Silent

Settings = Callable[..., CurationConfig]


@pytest.fixture
def done(settings: Settings) -> CurationConfig:
    shards.forget_contexts()
    config = settings()
    curate(config, in_threads, Silent())
    return config


def test_a_finished_run_has_nothing_to_do(done: CurationConfig, capsys: pytest.CaptureFixture[str]) -> None:
    found = folder_state(done.out, done)
    assert (found.shards, found.rerun, found.problems) == (3, [], [])
    assert all(stage.done == 3 and not stage.stale for stage in found.stages)
    assert found.stages[0].rows == 40 and found.calls["sample"] == 40
    assert main(["status", str(done.out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["published"] == found.published and told["rerun"] == []


def test_a_changed_setting_is_named_where_it_counts(done: CurationConfig, settings: Settings) -> None:
    found = folder_state(done.out, settings(reviser__temperature=0.5, policy__concurrency=3))
    assert {stage.stage: stage.stale for stage in found.stages if stage.stale} == {"revise": 3}
    assert found.rerun == ["revise: make 3 shards again: reviser.temperature changed, and what follows from it"]
    assert main(["status", str(done.out), "--set", "reviser.temperature=0.5", "--json"]) == 0


def test_what_differs_from_the_last_run_is_named(
    done: CurationConfig, settings: Settings, rows_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(**changed: object) -> list[str]:
        return folder_state(done.out, settings(**changed)).rerun

    assert told(output__rows_per_file=7) == ["publish: all shards are done; output.rows_per_file changed"]
    assert told(source__limit=20)[0].endswith("of the same rows: source.limit changed")
    # Only what is given differs from the last run.
    assert main(["status", str(done.out), "--set", "filter.max_distance=0.7"]) == 0
    assert (
        "filter: make 3 shards again: filter.max_distance changed, and what follows from it\n"
        in capsys.readouterr().out
    )
    rows_file.write_text(rows_file.read_text("utf-8") + rows_file.read_text("utf-8").splitlines()[0] + "\n", "utf-8")
    assert folder_state(done.out).rerun == [
        "source: plan again, keeping shards of the same rows: the source's content changed"
    ]


def test_a_run_that_was_stopped_is_told_by_its_own_settings(done: CurationConfig, settings: Settings) -> None:
    changed = settings(reviser__temperature=0.5)

    def stopped(config: CurationConfig, count: int, stages: tuple[str, ...], thresholds: object) -> None:
        if "revise" in stages:
            shards.run_stages(config, 1, stages, thresholds)  # type: ignore[arg-type]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        curate(changed, stopped, Silent())
    found = folder_state(done.out)
    assert found.published and found.publication == 1
    assert found.rerun[0] == "revise: make 2 shards again: reviser.temperature changed, and what follows from it"


def test_an_edited_chat_template_and_moved_thresholds_are_named(
    settings: Settings, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(tiny_tokenizer, tmp_path / "tokenizer")
    config = settings(labels__tokenizer=str(own))
    shards.forget_contexts()
    curate(config, in_threads, Silent())
    assert folder_state(config.out).rerun == []
    template = own / "chat_template.jinja"
    template.write_text(template.read_text("utf-8").replace("<|im_start|>", "<|im_start|> "), "utf-8")
    wanted = ["filter: make 3 shards again: the tokenizer changed, and what follows from it"]
    assert folder_state(config.out).rerun == folder_state(config.out, config).rerun == wanted
    before = {path: path.stat().st_mtime_ns for path in (config.out / "work").glob("*/0*.arrow")}
    curate(config, in_threads, Silent())
    rebuilt = {path.parent.name for path, at in before.items() if path.exists() and path.stat().st_mtime_ns != at}
    assert rebuilt == {"filter", "label"}
    # A threshold is a number by the scores on disk: another way to write the same one is no change.
    assert [
        s.why
        for s in folder_state(config.out, settings(labels__tokenizer=str(own), selection__eta1="q0.9")).stages
        if s.why
    ] == [{"selection.eta1": 3}]


def test_another_input_makes_the_next_stage_stale(done: CurationConfig) -> None:
    facts = done.out / "work" / "select" / "00001.json"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"content": "f" * 64}))
    assert folder_state(done.out).rerun == [], "the data set stands, whatever became of its stage files"
    (done.out / "manifest.json").unlink()
    assert folder_state(done.out).rerun == ["revise: make 1 shard again: input changed, and what follows from it"]


BROKEN = [
    ("work/score/00002.json", "score: 00002.arrow: damaged", "nothing"),
    ("work/score/00002.arrow", "score: 00002.arrow: damaged", "nothing"),
    ("work/plan.json", "plan.json: damaged", "nothing"),
    ("work/run.json", "", "nothing"),
    ("manifest.json", "not readable", "publish: all shards are done"),
    ("work/journal.db", "journal can't be read", "nothing"),
    ("data/train-00000-of-00001.parquet", "missing, or not of the size", "publish: all shards are done"),
]


def test_what_is_broken_is_named(done: CurationConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, (path, told, rerun) in enumerate(BROKEN):
        out = tmp_path / str(number)
        shutil.copytree(done.out, out, ignore=shutil.ignore_patterns("*-wal", "*-shm"))
        (out / path).write_bytes(b"{broken")
        assert main(["status", str(out)]) == 0
        printed = capsys.readouterr().out
        assert told in printed and f"a rerun   {rerun}\n" in printed, path


def test_a_folder_of_a_newer_version_is_named(done: CurationConfig, capsys: pytest.CaptureFixture[str]) -> None:
    content = manifest.load(done.out) or {}
    manifest.write(done.out, content | {"schema_version": "2.0", "version": "9.0"})
    assert main(["status", str(done.out)]) == 0
    assert "a rerun   end at once: " in (printed := capsys.readouterr().out)
    assert "written by figa-pipeline 9.0 with schema version 2.0" in printed


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("process 4194999 on {host}", "ended without tidying up"),
        ("process 7 on elsewhere", "if that still runs"),
        ("process {pid} on {host}", "by process {pid} on {host}\n"),
        ("\x1b[31mprocess", "if that still runs"),
    ],
)
def test_who_is_at_work(tmp_path: Path, text: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    known = {"host": socket.gethostname(), "pid": os.getpid()}
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "run.owner").write_text(text.format(**known))
    assert main(["status", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert told.format(**known) in printed and "\x1b" not in printed


def test_states_before_the_end(done: CurationConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (done.out / "manifest.json").unlink()
    assert folder_state(done.out).rerun == ["publish: all shards are done"]
    shutil.rmtree(done.out / "work" / "label")
    assert folder_state(done.out).rerun == ["label: make 3 shards of 3"]
    (tmp_path / "empty").mkdir()
    assert folder_state(tmp_path / "empty").rerun == ["plan the source and run every stage: there is no plan yet"]
    with pytest.raises(SystemExit, match="2"):
        main(["status", str(tmp_path / "nowhere")])
    assert "no such folder" in capsys.readouterr().err


def test_a_published_data_set_needs_no_work_folder(done: CurationConfig, settings: Settings) -> None:
    shutil.rmtree(done.out / "work")
    assert folder_state(done.out).rerun == []
    assert folder_state(done.out, settings(reviser__temperature=0.5)).rerun == [
        "plan the source and run every stage: reviser.temperature changed; models are called again, as there is no journal "
        "of responses"
    ]


def test_settings_of_any_text_are_those_of_the_last_run(done: CurationConfig) -> None:
    told = record.settings(done)
    told["policy"] |= {"system": "Hi \U0001f600: {x}", "temperature": 1e-05}
    again = record.rerun_of(told, ["run.workers=3"], done.out)
    assert (again.policy.system, again.policy.temperature) == ("Hi \U0001f600: {x}", 1e-05)
    (done.out / "work" / "run.json").write_text('{"settings": [1]}')
    assert main(["status", str(done.out)]) == 0
