"""Every source from its own format to the published columns, and answers that a source brings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema, sources
from pipeline.config.settings import CurationConfig
from pipeline.curate import Outcome
from pipeline.errors import ConfigError
from pipeline.run.estimate import estimate
from pipeline.run.plan import planned_columns
from tests.sources.rejects import DUPLICATES, REJECTS, path
from tests.sources.resolving import resolve
from tests.stages.tables import columns_after
from tests.test_run import run

Settings = Callable[..., CurationConfig]
ALL = {"selection__eta1": "off", "selection__eta2": "off", "selection__eta3": "off", "filter__max_distance": 1}


def rejected(outcome: Outcome, stage: str) -> list[dict[str, Any]]:
    file = outcome.out / "rejected" / f"{stage}.parquet"
    return pq.read_table(file).to_pylist() if file.exists() else []


def parsed(name: str, file: Path) -> dict[int, sources.SourceRow]:
    """The rows of a file by their number, those that a run doesn't reject at once."""
    source = resolve(name, str(file))
    adapter, _ = sources.bind(sources.get(name), {}, (r.value for r in sources.records(source)))  # type: ignore[misc]
    bad = {*REJECTS[name], *DUPLICATES.get(name, ())}
    lines = {record.source_row: int(record.where.rpartition(":")[2]) for record in sources.records(source)}
    return {r.source_row: adapter.parse(r.value) for r in sources.records(source) if lines[r.source_row] not in bad}


@pytest.mark.parametrize("name", sorted(REJECTS))
def test_from_the_sources_format_to_the_published_columns(name: str, settings: Settings) -> None:
    outcome = run(settings(source__name=name, source__input=str(path(name)), **ALL))
    rows = outcome.manifest["rows"]
    expected = parsed(name, path(name))
    assert rows["read"] == len(expected) + len(REJECTS[name]) + len(DUPLICATES.get(name, ()))
    assert rows["read"] == rows["published"] + rows["rejected"] and rows["published"] >= 10
    reasons = {
        int(json.loads(r["evidence"])["where"].rpartition(":")[2]): r["reason"] for r in rejected(outcome, "source")
    }
    assert reasons == REJECTS[name] | dict.fromkeys(DUPLICATES.get(name, ()), "duplicate_query")
    table = pq.read_table(outcome.out / "data")
    assert table.schema.remove_metadata().equals(schema.PUBLISHED)
    for row in table.to_pylist():
        given = expected[row["source_row"]]
        assert (row["source"], row["messages"], row["reference"]) == (name, given.messages, given.reference)
        assert len(row["revised_input_ids"]) == len(row["revised_weights"]) == len(row["revised_ops"])
        if given.revised is not None:
            assert (row["initial"], row["revised"]) == (given.initial, given.revised)


def spa(settings: Settings, out: str = "out", **flags: Any) -> CurationConfig:
    values = {"source__name": "spa", "source__input": str(path("spa")), "filter__min_reward_gain": None, **flags}
    return settings(out, **values)


def test_brought_answers_are_labelled_without_any_model(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("no model is needed")

    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setattr("pipeline.rewards.load_reward", refuse)
    monkeypatch.setattr("pipeline.models.local.download.fetch", refuse)
    # Models whose keys are missing, and no server to answer.
    config = spa(settings, policy__model="openai/gpt-4o-mini", reviser__model="anthropic/claude-haiku-4-5")
    outcome = run(config)
    assert outcome.calls == 0 and not settings.server.calls  # type: ignore[attr-defined]
    assert [step["stage"] for step in outcome.manifest["funnel"]] == ["source", "filter", "label"]
    assert {r["source_row"]: r["reason"] for r in rejected(outcome, "filter")} == {
        33: "unchanged",
        34: "too_different",
        38: "meta_talk",
        **{r["source_row"]: "too_different" for r in rejected(outcome, "filter") if (r["edit_distance"] or 0) > 0.8},
    }
    table = pq.read_table(outcome.out / "data")
    assert outcome.manifest["models"] == {
        "policy": {"name": "given"},
        "reviser": {"name": "given"},
        "reward": {"name": "none"},
    }
    for column, value in (("policy_model", "given"), ("reviser_model", "given"), ("diagnosis", "other")):
        assert set(table[column].to_pylist()) == {value}
    for column in ("reward_model", "reward_reference", "reward_initial", "reward_revised"):
        assert table[column].null_count == table.num_rows > 10
    assert run(config).already_done


@pytest.mark.parametrize("asking", [{"filter__min_reward_gain": -100}, {"labels__signal": "reward_weighted"}])
def test_rewards_of_brought_answers_are_computed_when_a_setting_asks(
    asking: dict[str, Any], settings: Settings
) -> None:
    outcome = run(spa(settings, **asking))
    assert [step["stage"] for step in outcome.manifest["funnel"]] == ["source", "score", "filter", "label"]
    table = pq.read_table(outcome.out / "data")
    for column in ("reward_model", "reward_reference", "reward_initial", "reward_revised"):
        assert table[column].null_count == 0 < table.num_rows
    if "labels__signal" in asking:
        assert all(row["reward_revised"] >= row["reward_initial"] for row in table.to_pylist())


def test_the_sources_own_answers_are_left_out_on_request(settings: Settings) -> None:
    outcome = run(spa(settings, source__enters_at="sample", filter__min_reward_gain=-100, **ALL))
    assert outcome.manifest["rows"]["published"] > 0 and outcome.calls > 0
    brought = {row.initial for row in parsed("spa", path("spa")).values()}
    assert not brought & set(pq.read_table(outcome.out / "data")["initial"].to_pylist())


def test_going_from_made_answers_to_brought_ones_in_one_folder(settings: Settings) -> None:
    fresh = run(spa(settings, "fresh")).manifest
    run(spa(settings, source__enters_at="sample", **ALL))
    after = run(spa(settings)).manifest
    # A republication gives files that changed new names; the manifest also counts the calls made in this folder.
    assert [_content(entry) for entry in after["files"]] == [_content(entry) for entry in fresh["files"]]
    assert sorted(map(_content, after["rejected_files"])) == sorted(map(_content, fresh["rejected_files"]))
    changed = {key for key in fresh if fresh[key] != after[key]}
    assert (
        {"calls"}
        <= changed
        <= {"calls", "cost_usd_by_call", "documents", "files", "rejected_files", "digest", "publication"}
    )


def _content(entry: dict[str, Any]) -> tuple[int, str]:
    return entry["rows"], entry["sha256"]


def test_a_published_data_set_reads_back(settings: Settings, tmp_path: Path) -> None:
    first = run(spa(settings))
    again = run(
        settings("again", source__name="parquet", source__input=str(first.out / "data"), filter__min_reward_gain=None)
    )
    kept = ["messages", "reference", "initial", "revised", "edit_distance", "revised_weights", "initial_weights"]
    tables = [pq.read_table(outcome.out / "data").select(kept) for outcome in (first, again)]
    assert tables[0].equals(tables[1]) and tables[0].num_rows > 10


def test_rows_with_and_without_answers_do_not_mix(settings: Settings) -> None:
    both = {"source__name": "alpaca,spa", "source__input": f"{path('alpaca')},{path('spa')}"}
    with pytest.raises(ConfigError, match="rows of alpaca have no initial"):
        run(settings(**both))
    with pytest.raises(ConfigError, match="rows of alpaca have no initial"):
        run(settings(source__name="alpaca", source__input=str(path("alpaca")), source__enters_at="filter"))
    assert not settings.server.calls  # type: ignore[attr-defined]
    mixed = run(settings(**both, source__enters_at="sample", source__limit=12, **ALL))
    assert mixed.manifest["rows"]["read"] == 12


def test_a_dry_run_of_brought_answers_asks_nothing(settings: Settings) -> None:
    said = estimate(spa(settings), lambda message: None).as_dict()
    assert (said["calls"], said["cost_usd"], said["plan"]["policy"]) == ([], 0, "given")


def test_columns_of_a_run_are_those_of_the_stages_left_out(settings: Settings) -> None:
    made = spa(settings, source__enters_at="sample")
    brought = spa(settings, source__enters_at="filter")
    assert planned_columns(made).equals(schema.SOURCE)
    assert set(planned_columns(brought).names) == set(columns_after("revise").names)
    scored = spa(settings, source__enters_at="filter", filter__min_reward_gain=0)
    assert set(planned_columns(scored).names) == set(columns_after("revise").names) - set(schema.SCORE.names)
    assert isinstance(planned_columns(scored), pa.Schema)


def test_brought_answers_have_no_system_prompt_of_a_policy_that_was_not_asked(settings: Settings) -> None:
    embedded = {"policy__model": "local/smollm2-135m-instruct", "reviser__model": "local/smollm2-135m-instruct"}
    assert not run(spa(settings, **embedded)).manifest["labels"]["system"]
    own = run(spa(settings, "own", policy__system="You are a pirate.", **embedded))
    assert own.manifest["labels"]["system"] == "You are a pirate."


def test_no_folder_of_the_machine_is_in_the_ledger(settings: Settings, tmp_path: Path) -> None:
    outcome = run(spa(settings))
    ledger = [json.dumps(row, default=str) for stage in ("source", "filter") for row in rejected(outcome, stage)]
    assert ledger and not any(str(path("spa").parent) in row or str(tmp_path) in row for row in ledger)
    assert any("spa" in row for row in ledger)
