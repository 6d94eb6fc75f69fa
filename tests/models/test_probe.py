"""The one small call per role before a run is paid, and where keys and proxies go."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import rewards
from pipeline.cli.main import main
from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import CurationConfig, RewardSettings
from pipeline.curate import curate, in_threads
from pipeline.errors import ConfigError
from pipeline.models import keys
from pipeline.models.journal import Journal
from pipeline.run import shards
from tests.conftest import Silent, as_arguments
from tests.loopback import LoopbackServer, behaviours, dialects, faults
from tests.loopback.faults import FaultPlan
from tests.loopback.rewards import RewardDesk
from tests.models.asking import ask, model_at

Settings = Callable[..., CurationConfig]
Start = Callable[..., LoopbackServer]


def run(config: CurationConfig) -> tuple[dict[str, Any], list[str]]:
    """The manifest and the warnings of a run, as in a process of its own."""
    shards.forget_contexts()
    reporter = Silent()
    return curate(config, in_threads, reporter).manifest, reporter.warnings


def test_what_is_refused_is_said_once_and_recorded(settings: Settings) -> None:
    server = settings.server  # type: ignore[attr-defined]
    server.engine.dialect = dialects.gpt_5
    manifest, warnings = run(settings(reviser__style="edits"))
    said = [warning for warning in warnings if "refuses some of our parameters" in warning]
    assert len(said) == 2 and "max_tokens is sent as max_completion_tokens; temperature is left out" in said[0]
    changed = manifest["models"]["policy"]["changed_parameters"]
    assert list(changed.values()) == ["max_tokens is sent as max_completion_tokens; temperature is left out"]
    assert len(json.loads((settings().out / "work" / "parameters.json").read_text())) == 2
    assert manifest["rows"]["published"] > 0 and manifest["calls"]["probe"] == 2
    # Two refusals per model, and nothing but answers since.
    assert len(server.calls) - server.completed == 4
    # The journal answers a run without its stage files, without key and network.
    for folder in ("sample", "score", "select", "revise", "filter", "label"):
        for file in (settings().out / "work" / folder).iterdir():
            file.unlink()
    (settings().out / "manifest.json").unlink()
    calls = len(server.calls)
    again, warnings = run(settings(reviser__style="edits"))
    assert len(server.calls) == calls and not any("refuses" in warning for warning in warnings)
    assert again["rows"] == manifest["rows"] and again["models"] == manifest["models"]


def test_check_spends_one_call_a_role_and_the_run_none_more(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    server = settings.server  # type: ignore[attr-defined]
    server.engine.dialect = dialects.azure
    config = settings()
    assert main(["check", *as_arguments(config)]) == 0
    printed = capsys.readouterr().out
    assert "it answers; seed is left out; response_format is left out" in printed
    assert server.completed == 2
    manifest, warnings = run(config)
    assert manifest["calls"]["probe"] == 2 and not any("refuses" in warning for warning in warnings)
    assert main(["check", *as_arguments(config)]) == 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (
            {"reviser__api_key_env": "WRONG_KEY"},
            ("reviser.model: ", "status 401", "The key sent was that of WRONG_KEY"),
        ),
        ({"reviser__api_key_env": None}, ("status 401", "set reviser.api_key_env=NAME")),
        ({"policy__model": "openai/gpt-9@{url}/v1"}, ("policy.model: ", "status 404", "knows no such model")),
        ({"policy__model": "openai/policy@{url}/v2"}, ("policy.model: ", "status 404")),
        ({"policy__model": "openai/policy@http://127.0.0.1:9/v1"}, ("no server answers there: start it, or correct",)),
    ],
)
def test_a_wrong_key_name_or_address_ends_the_run_before_it_costs(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: dict[str, Any],
    says: tuple[str, ...],
) -> None:
    server = settings.server  # type: ignore[attr-defined]
    server.engine.models = ["policy", "reviser"]
    monkeypatch.setenv("WRONG_KEY", "sk-secret-and-wrong")
    values = {name: value and value.replace("{url}", server.url) for name, value in flags.items()}
    config = settings(**values)
    assert main(["build", *as_arguments(config), "--prefect", "off"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert all(part in error for part in says) and "sk-secret" not in error
    assert sum(call.model != "policy" for call in server.calls if call.completed) == 0
    assert server.completed <= 1 and not list((config.out / "work").glob("sample/*.arrow"))


@pytest.mark.parametrize(
    ("arrange", "says"),
    [
        (lambda engine: setattr(engine, "dialect", dialects.everything), "the server refuses this role's calls"),
        (lambda engine: setattr(engine, "faults", FaultPlan.always(faults.QUOTA, hits_probes=True)), "429"),
        (
            lambda engine: setattr(engine, "faults", FaultPlan.always(faults.HTML, hits_probes=True)),
            "a web page answers there",
        ),
        (
            lambda engine: setattr(engine, "faults", FaultPlan.always(faults.BAD_REQUEST, hits_probes=True)),
            "status 400",
        ),
    ],
)
def test_a_server_that_takes_nothing_ends_the_run(
    settings: Settings, arrange: Callable[[Any], None], says: str
) -> None:
    server = settings.server  # type: ignore[attr-defined]
    arrange(server.engine)
    with pytest.raises(ConfigError, match=r"policy\.model: ") as caught:
        run(settings())
    assert says in str(caught.value) or says.replace("status 400", "refuses") in str(caught.value)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_a_server_that_fails_for_a_moment_does_not(settings: Settings) -> None:
    settings.server.engine.faults = FaultPlan.listed([faults.SERVER_ERROR, faults.UNAVAILABLE], hits_probes=True)  # type: ignore[attr-defined]
    manifest, _ = run(settings())
    assert manifest["calls"]["probe"] == 2


def test_rows_that_are_all_rejected_need_no_server(settings: Settings) -> None:
    run(settings(source__min_query_chars=10_000))
    assert not settings.server.calls  # type: ignore[attr-defined]


def test_a_reward_server_is_checked_with_one_text(
    settings: Settings, loopback: Start, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = RewardDesk(len)
    server = loopback(extensions=[desk.extend])
    monkeypatch.setenv("RM_KEY", server.key)
    model = f"openrlhf/rm@{server.url}"
    assert main(["check", *as_arguments(settings(reward__model=model, reward__api_key_env="RM_KEY"))]) == 0
    assert len(desk.bodies) == 1
    assert main(["check", *as_arguments(settings(reward__model=model))]) == 2
    assert "reward.api_key_env=NAME" in capsys.readouterr().err
    wrong = settings(reward__model=f"openrlhf/rm@{server.url}/nowhere", reward__api_key_env="RM_KEY")
    assert main(["check", *as_arguments(wrong)]) == 2


# -- keys and proxies -----------------------------------------------------------------------------------------------


def test_a_key_goes_only_where_it_belongs(loopback: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = loopback(behaviours.echo, key=None), loopback(behaviours.echo, key=None)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", own.openai_url)
    monkeypatch.setenv("OTHER_KEY", "sk-other-secret")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer sk-in-a-header")
    for spec, named, seen in (
        ("openai/m", None, "sk-openai-secret"),
        (f"openai/m@{own.openai_url}", None, "sk-openai-secret"),
        (f"openai/m@{other.openai_url}", None, None),
        (f"openai/m@{other.openai_url}", "OTHER_KEY", "sk-other-secret"),
    ):
        assert keys.read_key("policy.model", ModelSpec.parse(spec), named) == seen
    journal = Journal(tmp_path / "journal.db")
    model = model_at(other.openai_url, journal)
    ask(model, "with the key that its role names")
    from pipeline.config.settings import PolicySettings
    from pipeline.models import factory
    from pipeline.models.cost import Budget

    bare = factory.chat_model(
        PolicySettings(model=f"openai/m@{other.openai_url}"), journal=journal, budget=Budget(None, 0), local_file=Path
    )
    ask(bare, "without a name")
    assert other.engine.keys_seen == {"sk-openai-secret", "no-key"}


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("sk-abcdefgh\n", "holds a line break, at its end"),
        ("sk-abc\r\ndefgh", "holds a line break, at character 7"),
        (" sk-abcdefgh", "holds white space, at character 1"),
        ("sk-abc defgh", "holds white space"),
        ("sk-äbcdefgh", "holds a character that is not ASCII, at character 4"),
        ("sk-\u200babcdefgh", "not ASCII"),
        ("sk-\x1babcdefgh", "a control character"),
    ],
)
def test_a_key_that_no_header_carries_is_named_as_that(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], key: str, says: str
) -> None:
    monkeypatch.setenv("MY_KEY", key)
    assert main(["build", *as_arguments(settings(reviser__api_key_env="MY_KEY")), "--prefect", "off"]) == 2
    error = capsys.readouterr().err
    assert "reviser.model: the API key in MY_KEY" in error and says in error and key.strip() not in error
    assert not settings.server.calls  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", ["sk-live-123", "gsk_abcDEF123", "my key", "A,B", "{'a': 1}"])
def test_a_key_in_place_of_its_variable_is_refused_and_not_repeated(
    value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--source", "hh-rlhf", "--set", f"policy.api_key_env={value}", "--out", "no/such"]
    assert main(["build", *arguments, "--set", "policy.model=openai/m@http://127.0.0.1:9/v1"]) == 2
    error = capsys.readouterr().err
    assert "api_key_env" in error and (value == "A,B" or value not in error)


def test_the_keys_of_an_ensemble() -> None:
    two = "vllm/a@http://a:1,openai/b@http://b/v1"

    def members(**settings: Any) -> list[str | None]:
        return [member.api_key_env for member in rewards.member_settings(RewardSettings(**settings))]

    assert members(model=two, api_key_env="KEY_A,KEY_B") == ["KEY_A", "KEY_B"]
    assert members(model=two, api_key_env=",KEY_B") == [None, "KEY_B"]
    assert members(model="local/reward-head,vllm/a@http://a:1", api_key_env="KEY_A") == [None, "KEY_A"]
    with pytest.raises(ConfigError, match="expected 2 names with commas"):
        rewards.check_settings(RewardSettings(model=two, api_key_env="KEY_A"))


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY", "http_proxy"])
def test_no_proxy_sees_this_machines_servers(
    loopback: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback")
    desk = RewardDesk(len)
    server = loopback(behaviours.echo, extensions=[desk.extend])
    assert ask(model_at(server.openai_url, Journal(tmp_path / "journal.db"), attempts=1), "Hello").text == "Hello"
    settings = RewardSettings(model=f"openrlhf/rm@{server.url}", api_key_env="OPENAI_API_KEY", attempts=1)
    reward = rewards.load_reward(settings, lambda _: None)  # type: ignore[arg-type, return-value]
    assert reward.score([([{"role": "user", "content": "Q"}], "A")], [""])[0] > 0  # type: ignore[operator]
    assert all(
        map(keys.is_loopback, ("http://localhost:1", "http://[::1]:2/v1", "http://127.8.8.8", "http://a.localhost"))
    )
    assert not any(map(keys.is_loopback, ("http://host:1", "https://10.0.0.1", "http://localhost.example.org", None)))


def test_a_remote_server_is_reached_through_the_proxy(
    loopback: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = loopback(behaviours.echo)
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("OPENAI_API_KEY", proxy.key)
    model = model_at("http://model.example.invalid/v1", Journal(tmp_path / "journal.db"), attempts=1)
    assert ask(model, "Hello").text == "Hello" and proxy.completed == 1
