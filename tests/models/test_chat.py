"""A model asked through the real SDKs: what is journalled, what is asked again, how many at a time, how long it waits."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from pipeline.errors import ProviderStopped, RowReject
from pipeline.models import provider_errors
from pipeline.models import request as requests
from pipeline.models.event_loop import run
from pipeline.models.journal import Answer, Journal
from pipeline.models.retry import BREAKER, FIRST_ROWS
from tests.loopback import ChatRequest, FaultPlan, LoopbackServer, Reply, faults
from tests.loopback.fixtures import loopback  # noqa: F401 - a fixture
from tests.models.asking import PROVIDERS, address, ask, ask_all, caught, model_at

Start = Callable[..., LoopbackServer]


pytestmark = pytest.mark.usefixtures("quick_and_keyed")


def long_or_short(request: ChatRequest) -> Reply:
    return Reply(request.last_user if "short" in request.last_user else request.last_user * 40)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_answered_call_is_never_made_again(loopback: Start, journal: Journal, provider: str) -> None:  # noqa: F811
    with LoopbackServer(cached_share=0.5) as server:
        model = model_at(address(server, provider), journal, provider)
        first = ask(model, "Hello there", temperature=0.5, seed=3)
        assert (first.text, first.finish, first.max_tokens) == ("Hello there", "stop", 200)
        usage = server.calls[0].usage
        assert usage is not None and usage.cached_tokens > 0
        counted = first.prompt_tokens, first.completion_tokens, first.cached_tokens
        assert counted == (usage.input_tokens, usage.output_tokens, usage.cached_tokens)
        assert first.request_id == "req_00000001"
        assert ask(model, "Hello there", temperature=0.5, seed=3) == first
        assert (len(server.calls), model.calls) == (1, 1)
    # No server any more, and another process's journal: the answer is there.
    journal.close()
    later = model_at(address(server, provider), Journal(journal.path), provider)
    assert ask(later, "Hello there", temperature=0.5, seed=3) == first
    assert later.calls == 0


@pytest.mark.parametrize("provider", PROVIDERS)
def test_whatever_is_sent_makes_another_call(loopback: Start, journal: Journal, provider: str) -> None:  # noqa: F811
    server = loopback()
    model = model_at(address(server, provider), journal, provider)
    for text, params in [("a", {}), ("b", {}), ("a", {"temperature": 0.1}), ("a", {"seed": 1}), ("a", {"seed": 2})]:
        ask(model, text, **params)
    assert len(server.calls) == 5
    elsewhere = loopback()
    ask(model_at(address(elsewhere, provider), journal, provider), "a")
    assert len(elsewhere.calls) == 1


def test_system_turns_and_further_parameters_arrive(loopback: Start, journal: Journal) -> None:  # noqa: F811
    seen: list[ChatRequest] = []

    def answer(request: ChatRequest) -> Reply:
        seen.append(request)
        return Reply("Yes.")

    server = loopback(answer)
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Blue?"}]
    for provider in PROVIDERS:
        model = model_at(address(server, provider), journal, provider)
        params = {"temperature": 0.5, "response_format": {"type": "json_object"}, "extra_body": {"top_k": 4}}
        run(model.ask("sample", requests.ChatRequest(turns, 33, params)))
    for request in seen:
        assert (request.system, request.user_turns, request.max_tokens) == ("Be brief.", ["Blue?"], 33)
        assert (request.model, request.params["top_k"]) == ("model-1", 4)
    # Anthropic's API refuses sampling parameters at any value; its SDK doesn't know them any more.
    assert [request.params.get("temperature") for request in seen] == [0.5, None]
    assert [request.params.get("response_format") for request in seen] == [{"type": "json_object"}, None]


def test_each_provider_is_asked_for_a_schema_in_its_own_spelling(loopback: Start, journal: Journal) -> None:  # noqa: F811
    shape = {"type": "object", "properties": {"reason": {"enum": ["other"]}}, "required": ["reason"]}
    asked = {"type": "json_schema", "json_schema": {"name": "diagnosis", "strict": True, "schema": shape}}
    seen: list[ChatRequest] = []

    def answer(request: ChatRequest) -> Reply:
        seen.append(request)
        return Reply("other")

    server = loopback(answer)
    for provider in PROVIDERS:
        made = ask(model_at(address(server, provider), journal, provider), "What is wrong?", response_format=asked)
        assert made.text == '{"reason": "other"}'
    assert [request.schema for request in seen] == [shape, shape]
    assert [request.params.get("response_format") for request in seen] == [asked, None]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_higher_limit_asks_again_only_for_what_was_cut(loopback: Start, journal: Journal, provider: str) -> None:  # noqa: F811
    server = loopback(long_or_short)
    model = model_at(address(server, provider), journal, provider)
    texts = ["short one", "short two", "long one", "long two"]
    first = ask_all(model, texts, max_tokens=20)
    assert [r.finish for r in first if isinstance(r, Answer)] == ["stop", "stop", "length", "length"]
    assert ask_all(model, texts, max_tokens=20) == first
    assert len(server.calls) == 4
    second = ask_all(model, texts, max_tokens=400)
    assert [r.finish for r in second if isinstance(r, Answer)] == ["stop"] * 4
    assert second[:2] == first[:2]
    assert len(server.calls) == 6
    # Now nothing is cut: no higher limit asks again.
    assert ask_all(model, texts, max_tokens=4000) == second
    assert len(server.calls) == 6


def test_an_answer_that_no_lower_limit_would_have_given_is_asked_for_anew(loopback: Start, journal: Journal) -> None:  # noqa: F811
    server = loopback(long_or_short)
    model = model_at(server.openai_url, journal)
    assert ask(model, "long", 400).finish == "stop"
    assert ask(model, "long", 20).finish == "length"
    assert len(server.calls) == 2


@pytest.mark.parametrize("provider", PROVIDERS)
def test_never_more_calls_at_a_time_than_set(loopback: Start, journal: Journal, provider: str) -> None:  # noqa: F811
    """Though two shards in two threads share the model, each with more workers than that."""
    server = loopback(latency=0.03)
    model = model_at(address(server, provider), journal, provider, concurrency=3)
    shards = [[f"{shard} {index}" for index in range(9)] for shard in range(2)]
    threads = [threading.Thread(target=ask_all, args=(model, shard), kwargs={"workers": 8}) for shard in shards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert server.completed == 18
    assert server.in_flight_peak == 3


WAITS = [(faults.RATE_SECONDS, 0.4), (faults.RATE_MS, 0.4), (faults.RATE_DATE, 0.2)]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(("fault", "seconds"), WAITS)
def test_the_servers_wish_to_wait_is_honoured(
    loopback: Start,  # noqa: F811
    journal: Journal,
    provider: str,
    fault: str,
    seconds: float,
) -> None:
    server = loopback(faults=FaultPlan.listed([fault], retry_after=seconds))
    assert isinstance(caught(model_at(address(server, provider), journal, provider)), Answer)
    first, second = server.calls
    # A date has whole seconds: the next one, or the one after it.
    longest = 2.2 if fault == faults.RATE_DATE else seconds + 1
    assert seconds - 0.05 <= second.time - first.time < longest


@pytest.mark.parametrize("fault", [faults.RATE_ABSURD, faults.RATE_DATE])
def test_an_absurd_wish_is_capped(
    loopback: Start,  # noqa: F811
    journal: Journal,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(provider_errors, "LONGEST_WAIT_S", 0.2)
    server = loopback(faults=FaultPlan.listed([fault], retry_after=500))
    assert isinstance(caught(model_at(server.openai_url, journal)), Answer)
    first, second = server.calls
    assert 0.15 <= second.time - first.time < 2


@pytest.mark.parametrize("provider", PROVIDERS)
def test_many_failed_rows_in_a_row_stop_the_run(loopback: Start, journal: Journal, provider: str) -> None:  # noqa: F811
    server = loopback(faults=FaultPlan.always(faults.SERVER_ERROR))
    model = model_at(address(server, provider), journal, provider, attempts=2)
    with pytest.raises(ProviderStopped, match="run the same command again") as caught:
        ask_all(model, [str(index) for index in range(3 * BREAKER)])
    assert f"the first {FIRST_ROWS} rows of sample all failed alike: server_error" in str(caught.value)
    assert len(server.calls) == 2 * FIRST_ROWS
    server.engine.faults = FaultPlan(lambda number, request, attempt: "500" if request.last_user.isdigit() else None)
    ask(model, "An answer in between.")
    before = len(server.calls)
    with pytest.raises(ProviderStopped, match=f"{BREAKER} rows in a row failed"):
        ask_all(model, [str(index) for index in range(3 * BREAKER)])
    assert len(server.calls) == before + 2 * BREAKER


def test_an_answer_in_between_keeps_the_run_going(loopback: Start, journal: Journal) -> None:  # noqa: F811
    down = [faults.SERVER_ERROR] * (BREAKER - 1)
    server = loopback(faults=FaultPlan.listed([None, *down, None, *down, faults.EMPTY_TEXT, *down]))
    model = model_at(server.openai_url, journal, attempts=1)
    results = ask_all(model, [str(index) for index in range(3 * BREAKER + 1)])
    assert sum(isinstance(result, Answer) for result in results) == 3
    reasons = [result.reason for result in results if isinstance(result, RowReject)]
    assert reasons == ["server_error"] * (2 * BREAKER - 2) + ["empty_answer"] + ["server_error"] * (BREAKER - 1)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_model_that_is_not_there_stops_the_run(loopback: Start, journal: Journal, provider: str) -> None:  # noqa: F811
    """A mistyped name must not end as a data set of which every row was rejected."""
    server = loopback(models=["another"])
    model = model_at(address(server, provider), journal, provider)
    with pytest.raises(ProviderStopped, match="does not exist"):
        ask_all(model, [str(index) for index in range(3 * BREAKER)])
    assert len(server.calls) == FIRST_ROWS


def test_rows_that_the_server_finds_bad_do_not(loopback: Start, journal: Journal) -> None:  # noqa: F811
    """Rows too long for the model may stand together."""
    server = loopback(faults=FaultPlan(lambda number, request, attempt: faults.BAD_REQUEST if number > 1 else None))
    results = ask_all(model_at(server.openai_url, journal), [str(index) for index in range(2 * BREAKER)])
    assert {r.reason for r in results if isinstance(r, RowReject)} == {"bad_request"}
    assert len(results) == len(server.calls) == 2 * BREAKER


@pytest.mark.parametrize("provider", PROVIDERS)
def test_half_a_character_in_an_answer_is_replaced(loopback: Start, journal: Journal, provider: str) -> None:  # noqa: F811
    """One lone surrogate makes Arrow, hashing and tokenizers raise: none may pass into the table."""
    server = loopback(lambda request: Reply("sm\ud83dile \U0001f600"))
    answer = ask(model_at(address(server, provider), journal, provider), "Hello")
    assert answer.text == "sm\ufffdile \U0001f600"
