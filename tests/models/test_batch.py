"""Models asked through batch APIs, with the real SDKs: what is sent, what comes back, what is sent again, what it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import PolicySettings
from pipeline.errors import ConfigError, ProviderStopped, RowReject
from pipeline.models import factory
from pipeline.models import request as requests
from pipeline.models.batch.anthropic import AnthropicBatches
from pipeline.models.batch.ledger import unfinished
from pipeline.models.batch.openai import OpenAIBatches
from pipeline.models.event_loop import each_row, run
from pipeline.models.journal import Answer, Journal
from pipeline.models.prices import price_of
from tests.loopback import ChatRequest, LoopbackServer, Reply
from tests.loopback.batches import BROKEN, CANCELLED, EXPIRED, MISSING, ODD, BatchDesk
from tests.loopback.fixtures import loopback  # noqa: F401 - a fixture
from tests.models.asking import KEYS, PROVIDERS, address, model_at
from tests.models.batching import ask_together, model_in_batches, said, texts

Start = Callable[..., LoopbackServer]


pytestmark = pytest.mark.usefixtures("quick_and_keyed")


def first_time(*outcomes: str) -> Callable[[ChatRequest, int], str | None]:
    """Question n meets the n-th outcome when it is first sent."""
    planned = {f"Question {index}": outcome for index, outcome in enumerate(outcomes)}
    return lambda request, attempt: planned.get(request.last_user) if attempt == 1 else None


@pytest.mark.parametrize("provider", PROVIDERS)
def test_answers_are_those_of_live_calls(loopback: Start, journal: Journal, tmp_path: Path, provider: str) -> None:  # noqa: F811
    """Text, finish and usage, for rows with line ends that are none in JSONL, half characters, and cut answers."""
    odd = ["one\u2028two\x85three\x0bfour", "sm\\ud83dile", "x" * 2000, "\U0001f600 \x00 end", *texts(4)]

    def behaviour(request: ChatRequest) -> Reply:
        return Reply(request.last_user.replace("\\ud83d", "\ud83d"))

    desk = BatchDesk()
    server = loopback(behaviour, extensions=desk.extensions, cached_share=0.5)
    batched = ask_together(model_in_batches(address(server, provider), journal, provider), odd)
    live = ask_together(model_at(address(server, provider), Journal(tmp_path / "live.db"), provider), odd)
    assert desk.sizes == [len(odd)]

    def shown(results: list[Answer | RowReject]) -> list[tuple[object, ...]]:
        fields = ("text", "finish", "max_tokens", "prompt_tokens", "completion_tokens", "cached_tokens")
        return [tuple(getattr(result, field) for field in fields) for result in results]

    assert shown(batched) == shown(live)
    assert Counter(call.key for call in server.calls).most_common(1)[0][1] == 2, "both modes send the same body"


@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_gave_no_answer_is_sent_again_alone(loopback: Start, journal: Journal, provider: str) -> None:  # noqa: F811
    desk = BatchDesk(outcome=first_time(EXPIRED, MISSING, BROKEN, CANCELLED, "500", "429", ODD))
    server = loopback(extensions=desk.extensions)
    model = model_in_batches(address(server, provider), journal, provider)
    assert said(ask_together(model, texts(12))) == texts(12)
    assert sorted(desk.sent.values()) == [1] * 5 + [2] * 7
    assert sum(desk.sizes) == 19 and desk.sizes[0] == 12
    assert server.completed == 12
    # A later run, without any ledger: the journal has all.
    later = model_in_batches(address(server, provider), journal, provider)
    assert said(ask_together(later, texts(12))) == texts(12)
    assert sum(desk.sizes) == 19 and later.calls == 0


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_request_that_never_succeeds_is_a_reject(loopback: Start, journal: Journal, provider: str) -> None:  # noqa: F811
    def outcome(request: ChatRequest, attempt: int) -> str | None:
        return {"Question 0": EXPIRED, "Question 1": "400", "Question 2": "500"}.get(request.last_user)

    desk = BatchDesk(outcome=outcome, message="the seed is too long")
    server = loopback(extensions=desk.extensions)
    model = model_in_batches(address(server, provider), journal, provider, attempts=3)
    results = ask_together(model, texts(4))
    assert said(results) == ["batch_expired", "bad_request", "server_error", "Question 3"]
    assert isinstance(results[1], RowReject) and "the seed is too long" in results[1].evidence["error"]
    assert sorted(desk.sent.values()) == [1, 1, 3, 3]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_refusals_and_empty_answers_have_the_reasons_of_live_calls(
    loopback: Start,  # noqa: F811
    journal: Journal,
    provider: str,
) -> None:
    def behaviour(request: ChatRequest) -> Reply:
        return Reply("I can't.", "refusal") if request.last_user.endswith("0") else Reply(" ")

    desk = BatchDesk()
    server = loopback(behaviour, extensions=desk.extensions)
    model = model_in_batches(address(server, provider), journal, provider)
    assert said(ask_together(model, texts(2))) == ["refused", "empty_answer"]
    # Both were paid for: asked once.
    assert list(desk.sent.values()) == [1, 1]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_batches_keep_to_the_providers_limits(
    loopback: Start,  # noqa: F811
    journal: Journal,
    provider: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert (OpenAIBatches.most_requests, OpenAIBatches.most_bytes) == (50_000, 200_000_000)
    assert (AnthropicBatches.most_requests, AnthropicBatches.most_bytes) == (100_000, 256_000_000)
    for api in (OpenAIBatches, AnthropicBatches):
        monkeypatch.setattr(api, "most_requests", 5)
        monkeypatch.setattr(api, "most_bytes", 4000)
    desk = BatchDesk()
    server = loopback(extensions=desk.extensions)
    asked = [*texts(8), *(f"{index} " + "long " * 200 for index in range(6))]
    assert len(said(ask_together(model_in_batches(address(server, provider), journal, provider), asked))) == 14
    assert sum(desk.sizes) == 14 and max(desk.sizes) == 5 and min(desk.sizes[2:-1]) == 3
    assert all(len(entry["content"]) <= 4000 for entry in desk.files.values() if entry["file"]["purpose"] == "batch")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_creation_without_an_answer_is_looked_up(loopback: Start, journal: Journal, provider: str) -> None:  # noqa: F811
    desk = BatchDesk(lose_answers_to=[1])
    server = loopback(extensions=desk.extensions)
    model = model_in_batches(address(server, provider), journal, provider)
    assert said(ask_together(model, texts(6))) == texts(6)
    assert desk.sizes == [6]


def test_rows_that_make_a_batch_fail_are_left_out(loopback: Start, journal: Journal) -> None:  # noqa: F811
    desk = BatchDesk(fails={1: ("invalid_json_line", 2)})
    server = loopback(extensions=desk.extensions)
    model = model_in_batches(server.openai_url, journal, "openai")
    assert said(ask_together(model, texts(4))) == ["Question 0", "bad_request", "Question 2", "Question 3"]
    assert desk.sizes == [4, 3]


def test_a_full_queue_at_the_provider_makes_batches_smaller(loopback: Start, journal: Journal) -> None:  # noqa: F811
    full = ("token_limit_exceeded", None)
    desk = BatchDesk(fails={1: full, 2: full})
    server = loopback(extensions=desk.extensions)
    model = model_in_batches(server.openai_url, journal, "openai")
    assert said(ask_together(model, texts(8))) == texts(8)
    assert desk.sizes[:2] == [8, 4] and max(desk.sizes[2:]) <= 4
    assert server.completed == 8


def test_a_batch_that_fails_for_good_stops_the_run(loopback: Start, journal: Journal) -> None:  # noqa: F811
    desk = BatchDesk(fails={1: ("billing_hard_limit_reached", None)})
    server = loopback(extensions=desk.extensions)
    with pytest.raises(ProviderStopped, match="billing_hard_limit_reached"):
        ask_together(model_in_batches(server.openai_url, journal, "openai"), texts(4))
    assert desk.sizes == [4] and not unfinished(journal.path.parent)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_server_without_batches_is_told_in_one_line(loopback: Start, journal: Journal, provider: str) -> None:  # noqa: F811
    server = loopback()
    with pytest.raises(ProviderStopped, match=r"batch API.*404.*mode=live"):
        ask_together(model_in_batches(address(server, provider), journal, provider), texts(3))
    assert not unfinished(journal.path.parent)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_refused_key_stops_the_run_and_is_nowhere(
    loopback: Start,  # noqa: F811
    journal: Journal,
    provider: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = BatchDesk(outcome=lambda request, attempt: "401", message="Incorrect API key provided: sk-canary-1234.")
    server = loopback(extensions=desk.extensions, key="sk-canary-1234")
    monkeypatch.setenv(KEYS[provider], "sk-canary-1234")
    with pytest.raises(ProviderStopped, match="Check the API key") as caught:
        ask_together(model_in_batches(address(server, provider), journal, provider), texts(2))
    assert "canary" not in str(caught.value)
    assert not [path for path in journal.path.parent.iterdir() if b"canary" in path.read_bytes()]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_two_who_ask_the_same_share_one_request(loopback: Start, journal: Journal, provider: str) -> None:  # noqa: F811
    desk = BatchDesk()
    server = loopback(extensions=desk.extensions)
    model = model_in_batches(address(server, provider), journal, provider)
    assert said(ask_together(model, ["Same", "Same", "Other"])) == ["Same", "Same", "Other"]
    assert desk.sizes == [2]


def test_further_parameters_stand_in_the_body(loopback: Start, journal: Journal) -> None:  # noqa: F811
    seen: list[ChatRequest] = []

    def behaviour(request: ChatRequest) -> Reply:
        seen.append(request)
        return Reply("Yes.")

    server = loopback(behaviour, extensions=BatchDesk().extensions)
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Blue?"}]
    for provider in PROVIDERS:
        model = model_in_batches(address(server, provider), journal, provider)
        asked = requests.ChatRequest(turns, 33, {"temperature": 0.5, "extra_body": {"top_k": 4}})
        run(model.ask("sample", asked))
    for request in seen:
        assert (request.system, request.user_turns, request.max_tokens) == ("Be brief.", ["Blue?"], 33)
        assert request.params["top_k"] == 4 and "extra_body" not in request.params


def test_a_batch_costs_half(
    loopback: Start,  # noqa: F811
    journal: Journal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = BatchDesk()
    server = loopback(extensions=desk.extensions)
    prices = tmp_path / "prices.yaml"
    model = f"openai/model-1@{server.openai_url}"
    prices.write_text(
        f"as_of: 2026-01-01\nbatch: {{openai: 0.5}}\nmodels:\n  {model}: {{input: 100, cached_input: 10, output: 400}}\n"
    )
    monkeypatch.setenv("FIGA_PRICES", str(prices))

    ask_together(model_in_batches(server.openai_url, journal, "openai"), texts(5))
    usages = [call.usage for call in server.calls if call.usage]
    live = sum(usage.input_tokens * 100 + usage.output_tokens * 400 for usage in usages) / 1e6
    assert journal.spent() == pytest.approx(live / 2)
    shown = price_of(ModelSpec.parse(model), "batch")
    assert shown and (shown.input, shown.output) == (50, 200)


def test_local_models_have_no_batches() -> None:
    settings = PolicySettings(mode="batch")
    with pytest.raises(ConfigError, match="no batch API"):
        factory.check("policy", settings, None)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_samples_of_one_query_are_requests_of_their_own(loopback: Start, journal: Journal, provider: str) -> None:  # noqa: F811
    desk = BatchDesk()
    server = loopback(extensions=desk.extensions)
    model = model_in_batches(address(server, provider), journal, provider)
    turns = [{"role": "user", "content": "Why?"}]
    answers = each_row(
        range(3), lambda seed: model.ask("sample", requests.ChatRequest(turns, 50, {"seed": seed})), workers=3
    )
    assert desk.sizes == [3] and len(answers) == 3
