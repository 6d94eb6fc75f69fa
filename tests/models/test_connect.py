"""From a model's name to who answers: identity, keys, prices, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import PolicySettings, ReviserSettings
from pipeline.errors import ConfigError
from pipeline.models import factory
from pipeline.models.cost import Budget
from pipeline.models.journal import Journal
from pipeline.models.local import catalog
from pipeline.models.local import server as serve

VARIABLES = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "FIGA_PRICES")
LOCAL = "local/smollm2-135m-instruct"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def identity(text: str) -> dict[str, object]:
    return factory.identity(ModelSpec.parse(text))


def check(text: str, budget: float | None = None, **settings: Any) -> None:
    factory.check("reviser", ReviserSettings(model=text, **settings), budget)


def test_identity_holds_provider_name_and_address() -> None:
    models = ["openai/m", "openai/n", "anthropic/m", "openai/m@http://a/v1", "openai/m@http://b/v1", LOCAL]
    digests = [str(sorted(identity(model).items(), key=str)) for model in models]
    assert len(set(digests)) == len(models)
    assert identity("openai/m") == {"provider": "openai", "model": "m", "base_url": "https://api.openai.com/v1"}


def test_an_address_in_the_environment_is_part_of_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity("openai/m"), identity("anthropic/m")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://host:8000/v1")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://host:9000")
    assert identity("openai/m") == identity("openai/m@http://host:8000/v1") != before[0]
    assert identity("anthropic/m") == identity("anthropic/m@http://host:9000") != before[1]
    # An address in the name goes before the environment's.
    assert identity("openai/m@http://other/v1")["base_url"] == "http://other/v1"


def test_a_local_model_is_its_files_hash() -> None:
    assert identity(LOCAL) == {"provider": "local", "sha256": catalog.get("smollm2-135m-instruct").sha256}


def test_keys_are_no_part_of_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity("openai/m")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another")
    assert identity("openai/m") == before


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("openai/gpt-4o-mini", "set OPENAI_API_KEY in the environment"),
        ("anthropic/claude-haiku-4-5", "set ANTHROPIC_API_KEY in the environment"),
        ("hf/org/name", "hf/ models score answers"),
        (f"{LOCAL}@http://host/v1", "for a server use openai/NAME@http://host/v1"),
        ("local/smollm2", "did you mean local/smollm2-135m-instruct"),
    ],
)
def test_refuses_what_can_never_answer(model: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(model)
    assert str(caught.value).startswith(("reviser.model: ", "local model"))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_accepts_what_can(monkeypatch: pytest.MonkeyPatch) -> None:
    check(LOCAL)
    check(LOCAL, budget=0.0)
    # A server of one's own may take any key.
    check("openai/m@http://host/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-some")
    check("openai/gpt-4o-mini", budget=1.0)


def test_a_budget_needs_a_known_price(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-some")
    for model in ("openai/gpt-unheard-of", "openai/gpt-4o-mini@http://host/v1"):
        check(model)
        with pytest.raises(ConfigError, match=r"no known price for .*FIGA_PRICES"):
            check(model, budget=0.0)


def test_making_a_model_connects_to_nothing(tmp_path: Path) -> None:
    def no_file(name: str) -> Path:
        raise AssertionError("fetched before the first call")

    journal = Journal(tmp_path / "journal.db")
    for name in (LOCAL, "openai/m@http://127.0.0.1:9/v1"):
        settings = PolicySettings(model=name, concurrency=7)
        model = factory.chat_model(settings, journal=journal, budget=Budget(None, 0), local_file=no_file)
        assert model.name == name
        # A local model has at most a server a core, whatever the setting says.
        assert model.concurrency == (min(7, serve.cores(), 4) if name == LOCAL else 7)


def test_request_params() -> None:
    spec = ModelSpec.parse("openai/m")
    policy = PolicySettings(temperature=0.3, top_p=0.9, extra={"top_k": 5})
    assert factory.request_params(policy, spec, 42) == {
        "temperature": 0.3,
        "seed": 42,
        "top_p": 0.9,
        "extra_body": {"top_k": 5},
    }
    assert factory.request_params(ReviserSettings(), spec, 1) == {"temperature": 0.0, "seed": 1}
    assert factory.request_params(ReviserSettings(temperature=None), spec, 1) == {"seed": 1}
    settings = PolicySettings(model=LOCAL)
    sent = factory.request_params(settings, ModelSpec.parse(LOCAL), 1).get("extra_body", {})
    assert sent == {**catalog.get("smollm2-135m-instruct").defaults, "cache_prompt": False}
    later = factory.request_params(settings, ModelSpec.parse(LOCAL), 1, first=False)
    assert later["extra_body"]["cache_prompt"] is True
    assert settings.extra == {}
