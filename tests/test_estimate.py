"""--dry-run: what it says a run would ask, against what a run then asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import CurationConfig
from pipeline.context import Context
from pipeline.curate import resolve_source
from pipeline.errors import ConfigError, InputError
from pipeline.estimate import estimate
from pipeline.models import money
from pipeline.plan import plan_shards
from pipeline.stages.revise import revise
from pipeline.stages.sample import sample
from pipeline.storage import stagefile
from tests.conftest import SAMPLE

Settings = Callable[..., CurationConfig]
OFF = {"selection__eta1": "off", "selection__eta2": "off", "selection__eta3": "off"}


def quiet(message: str) -> None: ...


def estimated(config: CurationConfig) -> dict[str, dict[str, Any]]:
    return {calls["stage"]: calls for calls in estimate(config, quiet).as_dict()["calls"]}


def ask_for_all(config: CurationConfig) -> Context:
    """The stages that ask language models, on every row: what a run does when no threshold is set."""
    run = Context(config)
    plan = plan_shards(config, resolve_source(config, quiet), run.work, quiet)
    for file in stagefile.inspect_all(run.work, "source", plan.shards):
        sampled = sample(stagefile.read(file), config.policy, run.policy, lambda done, rejected: None)
        revise(sampled.rows, config.reviser, run.prompts, run.reviser, lambda done, rejected: None)
    return run


def test_calls_and_tokens_are_what_a_run_then_asks_for(settings: Settings) -> None:
    config = settings(**OFF)
    said = estimated(config)
    server = settings.server  # type: ignore[attr-defined]
    assert server.calls == []
    made = ask_for_all(config).journal.calls()
    assert set(said) == set(made) == {"sample", "diagnose", "revise"}
    for stage, calls in made.items():
        assert said[stage]["calls"] == pytest.approx(calls, rel=0.2), stage
    asked = {"policy": ["sample"], "reviser": ["diagnose", "revise"]}
    for model, stages in asked.items():
        billed = server.stats()["models"][f"openai/{model}"]["billed_usage"]
        assert sum(said[stage]["prompt_tokens"] for stage in stages) == pytest.approx(billed["input_tokens"], rel=0.35)
        # Answers are an upper estimate: a model may say less than the reference.
        assert sum(said[stage]["completion_tokens"] for stage in stages) >= billed["output_tokens"]


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
    price = money.Price(0.15, 0.075, 0.60)
    assert cost["revise"] == pytest.approx(price.most(revise["prompt_tokens"], revise["completion_tokens"]))
    assert found["cost_usd"] == pytest.approx(sum(cost.values()))
    assert 0.0001 < found["cost_usd"] < 0.1
    assert "as of 2" in found["plan"]["prices"]


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


def test_what_a_run_would_refuse_a_dry_run_refuses(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"left": 1}\n' * 3)
    with pytest.raises(InputError, match=r"bad.jsonl: none of the first 3 rows is usable; expected"):
        estimate(settings(source__input=str(path)), quiet)
