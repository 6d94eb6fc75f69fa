"""Settings: which of several values wins, what a mistake says, and what counts as a change of the data."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.config.loading import load_config
from pipeline.config.settings import CurationConfig
from pipeline.errors import ConfigError
from pipeline.schema import digest

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def yaml_file(folder: Path, content: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(content, "utf-8")
    return path


def mistake(**arguments: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(**arguments)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    return str(caught.value)


def setting(assignment: str) -> str:
    return mistake(assignments=[assignment])


def test_precedence(tmp_path: Path) -> None:
    file = yaml_file(tmp_path, "reviser: {max_tokens: 1, seed: 1, temperature: 0.1, concurrency: 1}")
    environ = {"FIGA_REVISER__SEED": "2", "FIGA_REVISER__TEMPERATURE": "0.2", "FIGA_REVISER__CONCURRENCY": "2"}
    assignments = ["reviser.temperature=0.3", "reviser.concurrency=3"]
    reviser = load_config(file, assignments, {"reviser.concurrency": 4}, environ).reviser
    assert (reviser.max_tokens, reviser.seed, reviser.temperature, reviser.concurrency) == (1, 2, 0.3, 4)
    # What nobody set keeps its default, and a flag that wasn't given sets nothing.
    assert reviser.attempts == load_config().reviser.attempts
    assert load_config(file, flags={"reviser.seed": None}).reviser.seed == 1
    assert load_config(assignments=["policy.seed=1", "policy.seed=2"]).policy.seed == 2


def test_the_environment_is_only_read_when_handed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIGA_POLICY__SEED", "9")
    assert load_config().policy.seed == 0
    others = {"FIGA_PRICES": "x", "FIGA_OFFICIAL": "y", "OPENAI_API_KEY": "z", "policy__seed": "3"}
    assert load_config(environ=others) == CurationConfig()


@pytest.mark.parametrize(
    ("assignment", "near"),
    [
        ("reviser.modell=x", "reviser.model"),
        ("selection.eta_1=0", "selection.eta1"),
        ("revisor.model=x", "reviser"),
        ("filter.max_distnce=0.5", "filter.max_distance"),
        ("label.alpha=1", "labels"),
    ],
)
def test_an_unknown_key_names_the_nearest(assignment: str, near: str) -> None:
    key = assignment.partition("=")[0]
    said = setting(assignment)
    assert key in said or f"unknown setting {key.partition('.')[0]};" in said
    assert f"did you mean {near}" in said
    environ = {f"FIGA_{key.upper().replace('.', '__')}": "x"}
    assert f"did you mean {near}" in mistake(environ=environ)


def test_an_unknown_key_that_is_near_to_nothing_names_the_sections() -> None:
    said = setting("zzz=1")
    assert "unknown setting zzz" in said
    assert all(section in said for section in CurationConfig.model_fields)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        *[
            ("0.3", 0.3),
            ("-2", -2.0),
            ("1e-3", 0.001),
            ("q0.3", "q0.3"),
            ("q0", "q0.0"),
            ("q1", "q1.0"),
            ("q.50", "q0.5"),
        ],
        *[("off", None), ("null", None), ("'off'", None), ("~", None)],
    ],
)
def test_thresholds(written: str, meant: float | str | None) -> None:
    assert load_config(assignments=[f"selection.eta1={written}"]).selection.eta1 == meant
    assert load_config(environ={"FIGA_SELECTION__ETA1": written}).selection.eta1 == meant


@pytest.mark.parametrize(
    "written", ["q1.5", "q-0.1", "q", "qq0.3", "low", ".nan", "nan", ".inf", "qnan", "on", "[0.1]", "''"]
)
def test_bad_thresholds(written: str) -> None:
    said = setting(f"selection.eta1={written}")
    assert "selection.eta1" in said
    assert "quantile" in said or "finite" in said


NUMBERS = """policy.temperature policy.top_p policy.timeout_s reviser.temperature filter.min_distance filter.max_distance
filter.min_reward_gain labels.alpha labels.beta labels.gamma labels.gate run.budget_usd""".split()


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
def test_no_number_is_nan_or_infinite(key: str, value: str) -> None:
    assert key in setting(f"{key}={value}")


@pytest.mark.parametrize(
    "assignment",
    [
        "source.limit=0",
        "source.limit=99999999999999999999999",
        "source.limit=True",
        "labels.alpha=True",
        "labels.alpha=1:30",
        "labels.alpha=1e+39",
        "source.input=''",
        "policy.max_tokens=0",
        "labels.beta=-1",
        "run.budget_usd=-1",
        "labels.signal=levenstein",
        "policy.temperature=hot",
        "source.shard_rows=1.5",
        "policy.seed=2147483648",
        "reviser=x",
        "filter.max_distance=0",
    ],
)
def test_a_bad_value_is_named_with_what_came(assignment: str) -> None:
    key, _, value = assignment.partition("=")
    assert f"setting {key}: " in setting(assignment)
    assert value in setting(assignment)


def test_numbers_are_decimal_and_an_empty_system_prompt_is_none_at_all() -> None:
    config = load_config(
        None, ["source.limit=010", "policy.system=", "policy.top_p="], environ={"FIGA_LABELS__SYSTEM": ""}
    )
    assert config.source.limit == 10 and config.policy.top_p is None
    assert config.policy.system == config.labels.system == ""


def test_a_distance_band_that_is_empty() -> None:
    said = mistake(assignments=["filter.min_distance=0.5", "filter.max_distance=0.5"])
    assert "setting filter: min_distance 0.5 must be below max_distance 0.5" in said
    assert "filter.min_reward_gain" in mistake(assignments=["filter.min_reward_gain=x", "labels.alpha=x"])
    assert "1 more" in mistake(assignments=["filter.min_reward_gain=x", "labels.alpha=x"])


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("opnai/gpt-4o", "did you mean openai"),
        ("gpt-4o-mini", "openai, anthropic, local, hf"),
        ("openai/", "provider/model"),
        ("openai/m@host:8000", "http://host:8000/v1"),
        ("5", "provider/model"),
        ("openai/m@http://host/v1?key=secret", "must not have a query"),
    ],
)
def test_a_bad_model_is_a_mistake_in_that_setting(spec: str, said: str) -> None:
    assert said in setting(f"reviser.model={spec}")
    assert "setting policy.model: " in setting(f"policy.model={spec}")


@pytest.mark.parametrize(
    "spec",
    [
        "openai/m@http://me:s3cret@h/v1",
        "openai/m@ftp://me:s3cret@h/v1",
        "openai/m@me:s3cret@h",
        "http://me:s3cret@h/v1",
    ],
)
def test_a_password_in_an_address_is_refused_and_not_repeated(spec: str) -> None:
    said = setting(f"reviser.model={spec}")
    assert "reviser.model" in said
    assert "s3cret" not in said


def test_models_are_kept_in_one_spelling() -> None:
    given = load_config(assignments=["policy.model=openai/org/name@http://h:1/v1/"])
    assert given.policy.model == "openai/org/name@http://h:1/v1"


@pytest.mark.parametrize("value", ["{x: .nan}", "{x: 2024-01-01}", "{x: [.inf]}", "5"])
def test_extra_parameters_must_be_json(value: str) -> None:
    assert "reviser.extra" in setting(f"reviser.extra={value}")
    assert load_config(assignments=["reviser.extra={top_k: 5, stop: [a]}"]).reviser.extra == {"top_k": 5, "stop": ["a"]}


@pytest.mark.parametrize(
    "content",
    [
        "a: [1\n b",
        "- 1\n- 2",
        "text",
        "\x00",
        "1: 2",
        "source: {1: 2}",
        "a: b: c",
        "reviser: 5",
        "!!python/name:os.system x",
    ],
)
def test_a_broken_yaml_file_is_one_line(tmp_path: Path, content: str) -> None:
    assert mistake(file=yaml_file(tmp_path, content))


def test_a_yaml_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "no such file" in mistake(file=tmp_path / "gone.yaml")
    assert str(tmp_path) in mistake(file=tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"\xe9: 1")
    assert "latin.yaml" in mistake(file=tmp_path / "latin.yaml")


@pytest.mark.parametrize("content", ["", "# nothing\n", "reviser:\n#  seed: 1\n", "{}"])
def test_empty_files_and_sections_are_the_defaults(tmp_path: Path, content: str) -> None:
    file = yaml_file(tmp_path, content)
    assert load_config(file) == CurationConfig()
    assert load_config(file, ["reviser.seed=3"]).reviser.seed == 3


@pytest.mark.parametrize(
    "assignment", ["reviser.seed", "=1", "reviser.seed=[1", "reviser.model.x=1", "reviser.seed.x=1"]
)
def test_a_malformed_assignment(assignment: str) -> None:
    setting(assignment)


def test_an_assignment_below_a_value() -> None:
    assert "reviser.seed" in mistake(assignments=["reviser.seed=1", "reviser.seed.x=1"])


def test_operational_settings_never_reach_a_digest() -> None:
    changed = load_config(
        assignments=["source.limit=5", "source.require_full=true", "reward.batch_size=3"]
        + [
            f"{who}.{key}"
            for who in ("policy", "reviser", "reward")
            for key in ("concurrency=3", "timeout_s=9", "attempts=2")
        ]
    )
    plain = load_config()
    assert changed != plain
    for name in CurationConfig.model_fields:
        if name != "run":
            assert getattr(changed, name).data_settings() == getattr(plain, name).data_settings()
    assert {"model", "max_length", "dtype", "prompts", "temperature"} <= set(plain.reward.data_settings())
    assert {"temperature", "seed", "max_tokens", "model", "extra"} <= set(plain.reviser.data_settings())


OPERATIONAL = {"limit", "target", "require_full", "concurrency", "timeout_s", "attempts", "batch_size", "rpm", "tpm"}
OPERATIONAL |= {"mode", "batch_poll_s", "batch_quiet_s", "device", "api_key_env", "judge_api_key_env", "price"}


@pytest.mark.parametrize("name", [name for name in CurationConfig.model_fields if name != "run"])
def test_every_other_setting_reaches_the_digest(name: str) -> None:
    section = getattr(load_config(), name)
    assert set(section.data_settings()) == set(type(section).model_fields) - OPERATIONAL


def test_a_config_is_frozen_and_survives_json() -> None:
    config = load_config(assignments=["selection.eta1=q0.25", "selection.eta2=off", "source.fields={prompt: q}"])
    with pytest.raises(ValidationError):
        config.reviser.seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        config.reviser = CurationConfig().reviser  # type: ignore[misc]
    assert CurationConfig.model_validate_json(config.model_dump_json()) == config


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=5))
def test_digests_do_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    assert digest(value, 1) == digest(dict(reversed(value.items())), 1)
    assert digest(value, 1) != digest(value, 2)
    assert digest(value) != digest([value])


def test_digests_are_the_same_everywhere() -> None:
    known = hashlib.sha256(rb'[{"a":"\u00e9","b":[1,2.5,null]},"x"]').hexdigest()
    assert digest({"b": [1, 2.5, None], "a": "é"}, "x") == known
    assert digest("\ud800") != digest("?")
    with pytest.raises(ValueError, match="JSON"):
        digest(float("nan"))
