"""A parameter that a server refuses by name is renamed or left out, whatever the server's shape and words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RowReject
from pipeline.models.adaptation import FILE, Adaptation, apply_changes, refused_parameters
from pipeline.models.chat import ChatModel
from pipeline.models.journal import Journal
from tests.loopback import LoopbackServer, dialects
from tests.models.asking import KEYS, address, ask, model_at

Start = Callable[..., LoopbackServer]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "one", "schema": {"type": "object", "properties": {}}}}
PARAMS: dict[str, Any] = {
    "temperature": 0.0,
    "top_p": 0.9,
    "seed": 7,
    "response_format": SCHEMA,
    "logprobs": True,
    "top_logprobs": 20,
}
NO_LOGPROBS = {"logprobs": None, "top_logprobs": None}
JSON = {"value": {"type": "json_object"}}
NEW_NAME = {"name": "max_completion_tokens"}


def model_of(
    server: LoopbackServer, journal: Journal, monkeypatch: pytest.MonkeyPatch, provider: str = "openai"
) -> ChatModel:
    monkeypatch.setenv(KEYS[provider], server.key)
    return model_at(address(server, provider), journal, provider)


@pytest.mark.parametrize(
    ("dialect", "changes"),
    [
        (dialects.gpt_5, {"max_tokens": NEW_NAME, "temperature": None, "top_p": None, **NO_LOGPROBS}),
        (dialects.azure, {"seed": None, "response_format": None}),
        (dialects.one_of_two, {"top_p": None}),
        (dialects.mistral, {"seed": None, **NO_LOGPROBS}),
        (dialects.fastapi, {"seed": None, "response_format": None}),
        (dialects.gemini, {"seed": None, **NO_LOGPROBS}),
        (dialects.groq, {"response_format": JSON, **NO_LOGPROBS}),
        (dialects.deepseek, {"response_format": JSON, "top_logprobs": {"value": 5}}),
        (dialects.litellm, {"seed": None, "response_format": None, **NO_LOGPROBS}),
        (dialects.tgi, {"temperature": None, "response_format": None}),
        (dialects.databricks, {"seed": None, "response_format": None}),
        (dialects.xai, {"seed": None, "top_p": None}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_refused_is_changed_once_and_kept(
    loopback: Start,
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
    dialect: dialects.Dialect,
    changes: dict[str, Any],
) -> None:
    server = loopback(dialect=dialect)
    model = model_of(server, journal, monkeypatch)
    assert ask(model, "Hello", **PARAMS).text
    assert model.adaptation.changes == changes
    refusals = len(server.calls) - server.completed
    assert 0 < refusals <= 8 and server.completed == 1
    ask(model, "Hello again", **PARAMS)
    # Another process: what the server takes is read from work/, the answer from the journal.
    model.adaptation._accepted.clear()
    later = Adaptation(journal.path.with_name(FILE), model.adaptation._name)
    assert later.changes == changes
    model.adaptation = later
    ask(model, "Hello", **PARAMS)
    assert len(server.calls) - server.completed == refusals and server.completed == 2


def test_answers_are_found_again_when_the_notes_are_gone(
    loopback: Start, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = loopback(dialect=dialects.gpt_5)
    model = model_of(server, journal, monkeypatch)
    first = ask(model, "Hello", **PARAMS)
    journal.path.with_name(FILE).unlink()
    model.adaptation = Adaptation(journal.path.with_name(FILE), "another name")
    assert ask(model, "Hello", **PARAMS) == first
    assert server.completed == 1


def test_a_refusal_in_the_middle_of_a_run_is_followed_too(
    loopback: Start, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = loopback()
    model = model_of(server, journal, monkeypatch)
    ask(model, "Hello", **PARAMS)
    server.engine.dialect = dialects.azure
    ask(model, "Another", **PARAMS)
    assert model.adaptation.changes == model.adaptation.news == {"seed": None, "response_format": None}
    ask(model, "Hello", **PARAMS)
    assert server.completed == 2, "what was answered before stays answered"


def test_samples_stay_different_where_no_seed_is_sent(
    loopback: Start, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = loopback(dialect=dialects.databricks)
    model = model_of(server, journal, monkeypatch)
    for seed in (1, 2, 1):
        ask(model, "Hello", seed=seed)
    assert server.completed == 2


def test_anthropics_schema_and_further_parameters_are_left_out(
    loopback: Start, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = loopback(dialect=dialects.anthropic)
    model = model_of(server, journal, monkeypatch, "anthropic")
    assert ask(model, "Hello", response_format=SCHEMA, extra_body={"top_k": 5}).text == "Hello"
    assert model.adaptation.changes == {"top_k": None, "output_config.format": None}


@pytest.mark.parametrize("dialect", [dialects.everything, dialects.vllm_context])
def test_what_no_change_helps_is_the_rows_reject_with_the_first_words(
    loopback: Start, journal: Journal, monkeypatch: pytest.MonkeyPatch, dialect: dialects.Dialect
) -> None:
    server = loopback(dialect=dialect)
    model = model_of(server, journal, monkeypatch)
    with pytest.raises(RowReject, match="bad_request") as caught:
        ask(model, "Hello", **PARAMS)
    assert caught.value.evidence["status"] == 400 and len(server.calls) == 1
    assert model.adaptation.changes == {}


SENT = {
    "model": "m",
    "messages": [],
    "max_tokens": 5,
    "temperature": 1,
    "top_p": 1,
    "seed": 1,
    "extra_body": {"top_k": 1},
}


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ('"Unsupported parameter: seed"', ["seed"]),
        ('["Unknown field topP"]', ["top_p"]),
        ('{"detail": "Unrecognized request argument supplied: top_k"}', ["top_k"]),
        (
            '{"error": {"message": "{\\"error\\": {\\"message\\": \\"`temperature` is deprecated for this model.\\"}}"}}',
            ["temperature"],
        ),
        ('{"detail": [{"loc": ["body", "max_completion_tokens"], "msg": "field required"}]}', ["max_tokens"]),
        ('{"error": {"message": "invalid temperature: only 1 is allowed for this model"}}', ["temperature"]),
        # About the row, not about a parameter.
        ('{"error": {"message": "max_tokens must be at most 4096", "param": "max_tokens"}}', []),
        ('{"error": {"message": "maximum context length is 10 tokens, reduce the messages", "param": "messages"}}', []),
        ('{"error": {"message": "The model m does not exist"}}', []),
        ('{"error": {"message": "stopped: the proceeds exceeded it"}}', []),
        ("", []),
        ("{" * 9000, []),
        ('{"a":' * 9000, []),
    ],
)
def test_names_in_a_refusal(body: str, names: list[str]) -> None:
    assert refused_parameters(body, SENT) == names


def test_changes_reach_the_extra_parameters() -> None:
    changes: dict[str, Any] = {"top_k": None, "max_tokens": NEW_NAME, "seed": {"value": 3}, "gone": None}
    assert apply_changes(SENT, changes) == {
        "model": "m",
        "messages": [],
        "temperature": 1,
        "top_p": 1,
        "max_completion_tokens": 5,
        "seed": 3,
    }


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"m": 3}', '{"m": [4]}', '{"m": [{"seed": 5}]}', '{"m": [{"seed": {}}]}']
)
def test_damaged_notes_are_none(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content, "utf-8")
    assert Adaptation(tmp_path / FILE, "m").changes == {}
