"""--dry-run: what it says a run would ask, against what a run then asks."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.settings import CurationConfig, RunSettings
from pipeline.curate import curate, in_threads
from pipeline.errors import ConfigError, InputError
from pipeline.models.cost import Price
from pipeline.models.journal import Answer
from pipeline.run import shards
from pipeline.run.estimate import estimate, preflight
from tests.conftest import SAMPLE, Silent

Settings = Callable[..., CurationConfig]
OFF = {"selection__eta1": "off", "selection__eta2": "off", "selection__eta3": "off"}


def quiet(message: str) -> None: ...


def estimated(config: CurationConfig) -> dict[str, dict[str, Any]]:
    return {calls["stage"]: calls for calls in estimate(config, quiet).as_dict()["calls"]}


PRICES = {"policy": (0.5, 1.5), "reviser": (2.5, 10.0), "judge": (1.0, 4.0)}


def priced(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the loopback models a price, so that the journal's dollars are the server's own count of tokens times it."""
    url = settings.server.openai_url  # type: ignore[attr-defined]
    models = {f"openai/{name}@{url}": {"input": i, "cached_input": i, "output": o} for name, (i, o) in PRICES.items()}
    path = tmp_path / "prices.yaml"
    path.write_text(json.dumps({"as_of": "2026-01-01", "models": models}), "utf-8")
    monkeypatch.setenv("FIGA_PRICES", str(path))


@pytest.mark.parametrize("style", ["rewrite", "edits"])
def test_a_full_run_then_costs_what_was_said(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, style: str
) -> None:
    """Calls, tokens and dollars a stage within a fifth; duplicates and rows that no adapter understands among the rows."""
    priced(settings, tmp_path, monkeypatch)
    path = tmp_path / "all.jsonl"
    lines = SAMPLE.read_text("utf-8").splitlines()
    path.write_text("\n".join([*lines, *lines[:30], "not json", '{"chosen": 5}']) + "\n", "utf-8")
    # The embedded reward prefers the scripted drafts, so that fewer rows than usual would pass the default gates.
    gates = {"selection__eta2": "off", "selection__eta3": -10.0}
    config = settings(source__input=str(path), reviser__style=style, **gates)
    said = estimated(config)
    server = settings.server  # type: ignore[attr-defined]
    assert server.calls == []
    shards.forget_contexts()
    outcome = curate(config, in_threads, Silent())
    assert outcome.context
    journal = outcome.context.journal
    tokens = dict.fromkeys([*said, "probe"], (0, 0))
    with closing(sqlite3.connect(journal.path)) as db:
        for stage, text in db.execute("SELECT stage, answer FROM answers"):
            answer = Answer(**json.loads(text))
            tokens[stage] = (tokens[stage][0] + answer.prompt_tokens, tokens[stage][1] + answer.completion_tokens)
    billed = server.stats()["billed_usage"]
    assert sum(t[0] for t in tokens.values()) == billed["input_tokens"]
    money = {stage: sums for stage, sums in journal.money().items() if stage != "probe"}
    for stage, (calls, dollars) in money.items():
        assert said[stage]["calls"] == pytest.approx(calls, rel=0.2), stage
        assert said[stage]["prompt_tokens"] == pytest.approx(tokens[stage][0], rel=0.2), stage
        assert said[stage]["completion_tokens"] == pytest.approx(tokens[stage][1], rel=0.2), stage
        assert said[stage]["cost_usd"] == pytest.approx(dollars, rel=0.2), stage
    assert set(said) == set(money) == {"sample", "diagnose", "revise"}
    assert said["sample"]["calls"] == len(lines)


@pytest.mark.parametrize("judge", ["pointwise", "pairwise"])
def test_judges_are_among_the_costs(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judge: str
) -> None:
    priced(settings, tmp_path, monkeypatch)
    model = f"openai/judge@{settings.server.openai_url}"  # type: ignore[attr-defined]
    config = settings(
        reward__model=model,
        reward__api_key_env="OPENAI_API_KEY",
        reward__judge=judge,
        policy__samples=2,
        policy__pick="worst",
        **OFF,
    )
    said = estimated(config)
    shards.forget_contexts()
    outcome = curate(config, in_threads, Silent())
    assert outcome.context
    for stage, (calls, dollars) in outcome.context.journal.money().items():
        if stage == "probe":
            continue
        assert said[stage]["calls"] == pytest.approx(calls, rel=0.2), stage
        assert said[stage]["cost_usd"] == pytest.approx(dollars, rel=0.25), stage


def test_a_limit_and_quantiles_lower_the_numbers(settings: Settings) -> None:
    everything = estimated(settings(**OFF))
    assert everything["sample"]["calls"] == everything["revise"]["calls"] >= 35
    limited = estimated(settings(source__limit=10, **OFF))
    assert limited["sample"]["calls"] == 10
    half = estimated(settings(selection__eta1="q0.5", selection__eta2="off", selection__eta3="off"))
    assert half["sample"]["calls"] == everything["sample"]["calls"]
    assert half["diagnose"]["calls"] == half["revise"]["calls"] == round(everything["revise"]["calls"] / 2)
    upper = estimated(settings(selection__eta1="off", selection__eta2="q0.75", selection__eta3="off"))
    assert upper["revise"]["calls"] == round(everything["revise"]["calls"] / 4)


def test_nothing_is_called_written_or_started(settings: Settings, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    found = estimate(settings(), quiet).as_dict()
    assert settings.server.calls == []  # type: ignore[attr-defined]
    assert set(tmp_path.rglob("*")) == before
    assert found["dry_run"] is True
    assert "40 rows" in found["plan"]["source"]


def test_a_price_that_is_not_known_is_no_number(settings: Settings) -> None:
    found = estimate(settings(), quiet).as_dict()
    assert [calls["cost_usd"] for calls in found["calls"]] == [None, None, None]
    assert found["cost_usd"] is None
    with pytest.raises(ConfigError, match="no known price"):
        estimate(settings(run__budget_usd=5.0), quiet)


def test_known_prices_are_multiplied_and_local_models_are_free(settings: Settings) -> None:
    config = settings(policy__model="local/smollm2-135m-instruct", reviser__model="openai/gpt-4o-mini", **OFF)
    found = estimate(config, quiet).as_dict()
    cost = {calls["stage"]: calls["cost_usd"] for calls in found["calls"]}
    assert cost["sample"] == 0
    revise = next(calls for calls in found["calls"] if calls["stage"] == "revise")
    price = Price(0.15, 0.075, 0.60)
    assert cost["revise"] == pytest.approx(price.most(revise["prompt_tokens"], revise["completion_tokens"]))
    assert found["cost_usd"] == pytest.approx(sum(cost.values()))
    assert 0.0001 < found["cost_usd"] < 0.1
    assert "as of 2" in found["plan"]["prices"]
    assert found["plan"]["probes"] == "a small call before the first row to each of reviser openai/gpt-4o-mini"
    told = [
        estimate(config.model_copy(update={"run": RunSettings(budget_usd=b)}), quiet).facts["budget"] for b in (0, 1)
    ]
    assert told == ["$0.00: less than the estimate, so the run would stop there, resumable", "$1.00"]


def test_the_whole_sample_is_counted_to_its_last_row(settings: Settings) -> None:
    lines = len(SAMPLE.read_text("utf-8").splitlines())
    found = estimate(settings(source__input=str(SAMPLE)), quiet)
    assert f"{lines} rows" in found.facts["source"]


def test_a_source_longer_than_what_is_looked_at_is_counted_too(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text("".join(f'{{"prompt": "{number}?", "response": "{number}."}}\n' for number in range(2500)))
    config = settings(source__name="jsonl", source__input=str(path), **OFF)
    assert estimated(config)["sample"]["calls"] == 2500
    assert "2,500 rows" in estimate(config, quiet).facts["source"]
    assert (
        estimated(settings(source__name="jsonl", source__input=str(path), source__limit=2200))["sample"]["calls"]
        == 2200
    )


def test_references_longer_than_an_answer_may_be_are_told_before_anything_is_paid(
    settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "long.jsonl"
    rows = [{"prompt": f"{number}?", "response": "word " * (300 if number < 3 else 10)} for number in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = settings(source__name="jsonl", source__input=str(path), policy__max_tokens=192)
    for look in (estimate, lambda *given: list(preflight(*given))):
        told: list[str] = []
        look(config, told.append)
        assert [note for note in told if note.startswith("30% of the references are longer than policy.max_tokens=192")]
    told.clear()
    estimate(settings(source__name="jsonl", source__input=str(path), policy__max_tokens=512), told.append)
    assert not [note for note in told if "max_tokens" in note]


def test_what_a_run_would_refuse_a_dry_run_refuses(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"left": 1}\n' * 3)
    with pytest.raises(InputError, match=r"bad.jsonl:1: wrong_shape: expected .*, got left: number; none of 3 rows"):
        estimate(settings(source__input=str(path)), quiet)
    with pytest.raises(ConfigError, match="no such folder"):
        estimate(settings(labels__tokenizer="/nowhere"), quiet)
    estimate(settings(labels__max_length=8), quiet)  # a long row is that row's reject


def test_thresholds_share_out_the_rows(settings: Settings) -> None:
    def share(eta1: object, eta2: object, eta3: object) -> float:
        said = estimated(settings(selection__eta1=eta1, selection__eta2=eta2, selection__eta3=eta3))
        return round(said["revise"]["calls"] / said["sample"]["calls"], 2)

    assert share("q0.5", "q0.5", "off") == 0.25
    assert share("q0.5", "q0.5", "q0.9") == 0.1
    assert share(0.0, -1.5, 0.0) == 1.0


def test_branches_are_calls_of_their_own(settings: Settings) -> None:
    said = estimated(settings(reviser__style="branches", **OFF))
    rows = estimated(settings(reviser__style="rewrite", **OFF))["revise"]["calls"]
    assert rows < said["revise"]["calls"] <= 6 * rows
    assert said["diagnose"]["calls"] == 0, "the program diagnoses"


def test_candidates_cost_a_revision_each(settings: Settings) -> None:
    once = estimated(settings(reviser__style="rewrite", reviser__temperature=1.0, **OFF))
    thrice = estimated(settings(reviser__style="rewrite", reviser__temperature=1.0, reviser__candidates=3, **OFF))
    assert thrice["revise"]["calls"] == 3 * once["revise"]["calls"]
    assert thrice["diagnose"] == once["diagnose"]


def test_a_batch_costs_half(settings: Settings) -> None:
    models = {"policy__model": "local/smollm2-135m-instruct", "reviser__model": "openai/gpt-4o-mini"}
    live = estimate(settings(**models), quiet).cost_usd
    batch = estimate(settings(reviser__mode="batch", **models), quiet)
    assert batch.cost_usd == pytest.approx(live / 2)  # type: ignore[operator]
    assert "by batch" in batch.facts["reviser"]


def test_rows_that_curation_rejects_are_not_asked(settings: Settings) -> None:
    found = estimate(settings(source__min_query_chars=10_000), quiet)
    assert [(calls.calls, calls.prompt_tokens) for calls in found.calls] == [(0, 0)] * 3
    assert found.facts["to ask"].startswith("0 rows; 40 would be rejected")
