"""provider/model[@base_url]"""

from __future__ import annotations

import pytest

from pipeline.config.model_names import ModelSpec, base_url
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("openai/gpt-4o-mini", ModelSpec("openai", "gpt-4o-mini")),
        (" anthropic/claude-haiku-4-5 ", ModelSpec("anthropic", "claude-haiku-4-5")),
        ("local/smollm2-135m-instruct", ModelSpec("local", "smollm2-135m-instruct")),
        ("hf/org/name", ModelSpec("hf", "org/name")),
        ("openai/org/name@http://host:8000/v1", ModelSpec("openai", "org/name", "http://host:8000/v1")),
        ("openai/m@https://host/v1/", ModelSpec("openai", "m", "https://host/v1")),
        ("openai/m@http://[::1]:8000/v1", ModelSpec("openai", "m", "http://[::1]:8000/v1")),
    ],
)
def test_reads_and_writes_back(text: str, spec: ModelSpec) -> None:
    assert ModelSpec.parse(text) == spec
    assert ModelSpec.parse(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("opnai/gpt-4o", "did you mean openai?"),
        ("gpt-4o", "expected one of openai, anthropic, local, hf"),
        ("", "expected one of"),
        ("openai", "expected provider/model"),
        ("openai/", "expected provider/model"),
        ("openai/@http://host/v1", "expected provider/model"),
        ("openai/m@", "expected an address"),
        ("openai/m@host:8000", "expected an address"),
        ("openai/m@ftp://host/v1", "expected an address"),
        ("openai/m@http://", "expected an address"),
        ("openai/m@http://[::1/v1", "expected an address"),
        ("openai/m@http://host:99999/v1", "expected an address"),
        ("openai/m@http://host:port/v1", "expected an address"),
    ],
)
def test_refuses_in_one_line_that_says_what_was_expected(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelSpec.parse(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["http://me:hunter2@host/v1", "https://:hunter2@host/v1", "ftp://me:hunter2@host"])
@pytest.mark.parametrize("provider", ["openai", "opnai"])
def test_a_password_is_refused_and_not_repeated(provider: str, address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelSpec.parse(f"{provider}/m@{address}")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("address", ["http://me:hunter2@host/v1", "host:8000", "ftp://host"])
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_an_address_in_the_environment_is_held_to_the_same(
    monkeypatch: pytest.MonkeyPatch, provider: str, address: str
) -> None:
    monkeypatch.setenv(f"{provider.upper()}_BASE_URL", address)
    with pytest.raises(ConfigError, match=f"{provider.upper()}_BASE_URL: expected an address") as caught:
        base_url(ModelSpec(provider, "m"))
    assert "hunter2" not in str(caught.value)
