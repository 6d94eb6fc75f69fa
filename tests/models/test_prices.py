"""Where prices come from: the setting, the user's table, the public list."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.loading import load_config
from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import CurationConfig, PolicySettings, ReviserSettings
from pipeline.errors import ConfigError
from pipeline.models import factory
from pipeline.models.cost import Price
from pipeline.models.prices import price_of
from pipeline.models.request import Answer
from pipeline.run import pricing

GPT_4O_MINI = Price(0.15, 0.075, 0.60, 0.15)
GEMINI = "https://generativelanguage.googleapis.com/v1beta/openai/"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("FIGA_PRICES", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-some")


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | bytes], Path]:
    """Names a table of one's own."""

    def write(content: str | bytes) -> Path:
        path = tmp_path / "prices.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        monkeypatch.setenv("FIGA_PRICES", str(path))
        return path

    return write


def price(text: str, mode: str = "live", **more: Any) -> Price | None:
    return price_of(ModelSpec.parse(text), mode, **more)


@pytest.mark.parametrize(
    "model",
    [
        "openai/gpt-4o-mini",
        "openai/gpt-4o-mini-2024-07-18",
        "openai/gpt-5",
        "openai/gpt-5-mini-2025-08-07",
        "openai/gpt-5.5-2031-01-01",
        "openai/o4-mini",
        "anthropic/claude-haiku-4-5",
        "anthropic/claude-sonnet-4-5-20250929",
        "anthropic/claude-3-5-haiku-latest",
        "openai/deepseek-chat@https://api.deepseek.com/v1",
        "openai/anthropic/claude-sonnet-4.5@https://openrouter.ai/api/v1",
        "openai/llama-3.3-70b-versatile@https://api.groq.com/openai/v1",
        "openai/meta-llama/Llama-3.3-70B-Instruct-Turbo@https://api.together.xyz/v1",
        "openai/mistral-small-latest@https://api.mistral.ai/v1",
        f"openai/gemini-2.5-flash@{GEMINI}",
        f"openai/models/gemini-2.5-flash@{GEMINI}",
        "openai/gpt-4o@https://mine.openai.azure.com/openai/v1",
    ],
)
def test_todays_models_have_a_price_by_name_and_address(model: str) -> None:
    found = price(model)
    assert found and 0 < found.input <= found.output <= 100 and found.origin.startswith("genai-prices ")
    assert 0 < found.cached_input <= found.input
    batch = price(model, "batch")
    assert batch and batch.output == pytest.approx(found.output / 2) and batch.cached_input == batch.input


def test_known_and_unknown_prices() -> None:
    assert price("openai/gpt-4o-mini") == GPT_4O_MINI
    assert price("openai/gpt-4o-mini-2024-07-18") == price("openai/gpt-4o-mini")
    assert price("openai/gpt-4o-2024-05-13") != price("openai/gpt-4o")
    for unknown in ("gpt-unheard-of", "gpt-4o-mini@http://host/v1", "text-embedding-3-small", "moderation"):
        assert price(f"openai/{unknown}") is None
    for unknown in ("openrouter/auto", "openai/gpt-4o:online", "nobody/nothing:free-of-charge"):
        assert price(f"openai/{unknown}@https://openrouter.ai/api/v1") is None
    assert price("local/smollm2-135m-instruct") == price("hf/org/name") == Price(0, 0, 0)
    assert price("openai/deepseek/deepseek-r1:free@https://openrouter.ai/api/v1") == Price(0, 0, 0)


def test_the_source_is_named_with_its_date() -> None:
    found = price("openai/gpt-4o-mini")
    assert found
    named = re.fullmatch(r"genai-prices \d+\.\d+\.\d+, as of (\d{4}-\d\d-\d\d)", found.origin)
    assert named and date(2026, 11, 1) <= date.fromisoformat(named[1]) <= date.today()


def test_tiers_are_reserved_at_their_highest_and_paid_as_reached() -> None:
    found = price(f"openai/gemini-2.5-pro@{GEMINI}")
    assert found and len(found.tiers) == 1
    assert found.most(100, 100) == pytest.approx(100 * (2.50 + 15) / 1e6)
    short, long = (Answer("", "stop", 100, prompt_tokens=prompt, completion_tokens=100) for prompt in (100, 300_000))
    assert found.of(short) == pytest.approx(100 * (1.25 + 10) / 1e6)
    assert found.of(long) == pytest.approx((300_000 * 2.50 + 100 * 15) / 1e6)


def test_a_price_of_the_hour_counts_at_its_dearest() -> None:
    found = price("openai/deepseek-chat@https://api.deepseek.com/v1")
    assert found == Price(0.27, 0.07, 1.10, 0.27)


def test_a_fee_per_request_is_part_of_every_call() -> None:
    found = price("openai/sonar@https://api.perplexity.ai")
    assert found and found.request > 0
    assert found.of(Answer("", "stop", 1)) == found.most(0, 0) == found.request


def test_a_dearer_service_tier_costs_what_it_does() -> None:
    usual, priority = price("openai/gpt-5"), price("openai/gpt-5", extra={"service_tier": "priority"})
    assert usual and priority and priority.output == 2 * usual.output
    assert price("openai/gpt-5", extra={"top_k": 3}) == usual


def test_an_address_in_the_environment_is_a_way_to_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://gateway/v1")
    assert price("openai/gpt-4o-mini") == GPT_4O_MINI
    assert price("openai/gpt-4o-mini@http://host/v1") is None
    # Unless it is another provider's.
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.deepseek.com/v1")
    assert price("openai/deepseek-chat") == price("openai/deepseek-chat@https://api.deepseek.com/v1")
    assert price("openai/gpt-4o-mini") is None


@pytest.mark.parametrize(
    "content",
    [
        "openai/m@http://host:8000/v1: [1, 3]",
        "openai/m: [1, 3]",
        "openai/m: {input: 1, output: 3}",
        "as_of: 2031-05-06\nmodels:\n  openai/m@http://host:8000/v1: {input: 1, output: 3}\n",
        "models: {openai/m: {input: 1, cached_input: 1, cache_write: 1, output: 3}}",
        "models: {openai/n: [2, 2]}\nopenai/m: [1, 3]\nbatch: {openai: 0.25}",
    ],
)
def test_a_table_of_ones_own_lies_over_the_public_one(table: Callable[[str], Path], content: str) -> None:
    table(content)
    found = price("openai/m@http://host:8000/v1")
    assert found == Price(1, 1, 3, found.cache_write) and found.written == 1  # type: ignore[union-attr]
    assert price("openai/gpt-4o-mini") == GPT_4O_MINI
    when = "2031-05-06" if "as_of" in content else str(date.today())
    assert found and found.origin == f"prices.yaml (FIGA_PRICES), as of {when}"
    batch = price("openai/m@http://host:8000/v1", "batch")
    assert batch and batch.output == 3 * (0.25 if "batch" in content else 0.5)


def test_ones_own_table_wins_and_the_setting_over_it(table: Callable[[str], Path]) -> None:
    table("openai/gpt-4o-mini: [7, 8]\nopenai/gpt-4o-mini@http://host/v1: [9, 10]")
    assert price("openai/gpt-4o-mini") == Price(7, 7, 8)
    assert price("openai/gpt-4o-mini@http://host/v1") == Price(9, 9, 10)
    assert price("openai/gpt-4o-mini@http://other/v1") == Price(7, 7, 8)
    assert price("openai/gpt-4o-mini", own=(0.0, 0.0)) == Price(0, 0, 0)
    batch = price("openai/gpt-4o-mini", "batch", own=(2.0, 4.0))
    assert batch and (batch.input, batch.output) == (1, 2)


def test_an_edited_table_counts_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.yaml"
    monkeypatch.setenv("FIGA_PRICES", str(path))
    for dollars in (1.0, 2.0):
        path.write_text(f"openai/m: [{dollars}, 0]")
        assert price("openai/m") == Price(dollars, dollars, 0)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "as_of: today\nmodels: [openai/m]",
        "openai/m: 3",
        "openai/m: [3]",
        "openai/m: [1, 2, 3]",
        "gpt-4o: [1, 2]",
        "openai/m: {output: 3}",
        "openai/m: {input: 1, cached_input: 1, output: 3, more: 4}",
        "openai/m: {input: 1, output: 3, origin: me}",
        "openai/m: {input: 1, output: 3, tiers: 4}",
        "openai/m: {input: cheap, cached_input: 1, output: 3}",
        "openai/m: [null, 3]",
        "openai/m: [true, 3]",
        "openai/m: [-1, 3]",
        "openai/m: [.nan, 3]",
        "openai/m: [.inf, 3]",
        "batch: {openai: -1}",
        "as_of: [unclosed\nmodels: {",
        b"as_of: \xff\xfe\nmodels: {}",
    ],
)
def test_a_malformed_table_is_named_in_one_line(table: Callable[[str | bytes], Path], content: str | bytes) -> None:
    path = table(content)
    with pytest.raises(ConfigError) as caught:
        price("openai/m")
    assert str(caught.value).startswith(f"{path}: not a price table")
    assert "\n" not in str(caught.value)


def test_a_missing_table_is_named(table: Callable[[str], Path]) -> None:
    path = table("")
    path.unlink()
    with pytest.raises(ConfigError, match=r"prices\.yaml"):
        price("openai/m")


@pytest.mark.parametrize(
    ("typed", "read"),
    [("0,0", (0.0, 0.0)), ("0.15,0.6", (0.15, 0.6)), ("[1, 2]", (1.0, 2.0)), ("1e-3, 2", (0.001, 2.0)), ("null", None)],
)
def test_the_setting_as_typed(typed: str, read: tuple[float, float] | None) -> None:
    for role in ("policy", "reviser", "reward"):
        config = load_config(assignments=[f"{role}.price={typed}"])
        assert getattr(config, role).price == read
        assert CurationConfig.model_validate(config.model_dump(mode="json")) == config
        # How a call is paid changes no data.
        assert "price" not in getattr(config, role).data_settings()


@pytest.mark.parametrize("typed", ["1", "1,2,3", "-1,0", "cheap,0", "1,.nan", "true,1", "{a: 1}", "inf,0"])
def test_a_setting_that_is_no_price(typed: str) -> None:
    with pytest.raises(ConfigError, match=r"policy\.price: expected US dollars per million tokens of input and output"):
        load_config(assignments=[f"policy.price={typed}"])


def test_without_a_price_a_budget_names_two_ways_that_work_as_typed(table: Callable[[str], Path]) -> None:
    settings = ReviserSettings(model="openai/my-model@http://localhost:8000/v1")
    factory.check("reviser", settings, None)
    with pytest.raises(ConfigError) as caught:
        factory.check("reviser", settings, 1.0)
    option = re.search(r"--set (\S+)", str(caught.value))
    line = re.search("`(.+)`", str(caught.value))
    assert option and line
    typed = load_config(assignments=[option[1], f"reviser.model={settings.model}"]).reviser
    factory.check("reviser", typed, 1.0)
    table(line[1])
    factory.check("reviser", settings, 1.0)


def test_the_prices_of_a_run_say_where_they_come_from(table: Callable[[str], Path], tmp_path: Path) -> None:
    table("openai/gpt-4o: [7, 8]")
    config = load_config(
        assignments=[
            "policy.model=openai/own@http://localhost:8000/v1",
            "policy.price=0,0.5",
            "reviser.model=openai/gpt-4o-mini",
            "reviser.mode=batch",
            "reward.model=openai/gpt-4o,openai/gpt-unheard-of,local/reward-head",
            f"output.dir={tmp_path}",
        ]
    )
    policy, reviser, judge, unknown = pricing.prices(config)
    assert (policy["role"], policy["input"], policy["output"], policy["from"]) == ("policy", 0, 0.5, "policy.price")
    assert (reviser["mode"], reviser["output"]) == ("batch", 0.3) and reviser["from"].startswith("genai-prices ")
    assert (judge["role"], judge["input"], judge["from"]) == (
        "reward",
        7,
        f"prices.yaml (FIGA_PRICES), as of {date.today()}",
    )
    assert (unknown["model"], unknown["from"]) == ("openai/gpt-unheard-of", "unknown") and "input" not in unknown
    assert pricing.unpriced(config) == ["openai/gpt-unheard-of"]
    told = pricing.described(config)["prices"]
    assert "policy $0 in, $0.5 out per million tokens (policy.price)" in told and "reward unknown" in told
    assert pricing.prices(load_config()) == []


def test_a_models_price_is_the_one_of_its_role(tmp_path: Path) -> None:
    from pipeline.models.cost import Budget
    from pipeline.models.journal import Journal

    settings = PolicySettings(model="openai/gpt-4o-mini@http://localhost:9/v1", price=(1.0, 2.0))
    model = factory.chat_model(settings, journal=Journal(tmp_path / "j.db"), budget=Budget(None, 0), local_file=Path)
    assert model.price == Price(1, 1, 2)
