"""The server through both real SDKs and both of their transports: answers, limits, accounts, life and death."""

from __future__ import annotations

import asyncio
import doctest
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import anthropic
import openai
import pytest

from tests.loopback import LoopbackProcess, Reply, canonical_key, count_tokens, openai_wire, reviser, schema
from tests.loopback.clients import BACKENDS, PROVIDERS, ask, ask_all, client_for, finish_of, send, text_of
from tests.loopback.ledger import Ledger
from tests.loopback.limits import RateLimiter

both = pytest.mark.parametrize("provider", PROVIDERS)
transports = pytest.mark.parametrize("backend", BACKENDS)
SDK = {"openai": openai, "anthropic": anthropic}


@both
@transports
def test_answers_with_usage(loopback, provider, backend):
    server = loopback(cached_share=0.5)
    answer = ask(server, provider, "Hello there", "Hi", "What now?", backend=backend)
    assert text_of(answer) == "What now?"
    assert finish_of(answer) == {"openai": "stop", "anthropic": "end_turn"}[provider]
    prompt = sum(count_tokens(text) + 4 for text in ("Hello there", "Hi", "What now?"))
    usage = answer.usage
    if provider == "openai":
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (prompt, 3, prompt + 3)
        assert usage.prompt_tokens_details.cached_tokens == prompt // 2
    else:
        assert (usage.input_tokens, usage.cache_read_input_tokens) == (prompt - prompt // 2, prompt // 2)
        assert usage.output_tokens == 3
    assert server.calls[0].usage.total == prompt + 3


@both
def test_system_text_reaches_the_behaviour(loopback, provider):
    server = loopback(lambda request: Reply(f"{request.system}|{request.last_user}"))
    if provider == "openai":
        turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
        answer = ask(server, provider, messages=turns)
    else:
        answer = ask(server, provider, "Hi", system=[{"type": "text", "text": "Be brief."}])
    assert text_of(answer) == "Be brief.|Hi"


@both
def test_limits_of_length_and_stop_sequences(loopback, provider):
    server = loopback()
    short = ask(server, provider, "one two three four five", max_tokens=2)
    assert (text_of(short), finish_of(short)) == ("one two ", {"openai": "length", "anthropic": "max_tokens"}[provider])
    name, finish = {"openai": ("stop", "stop"), "anthropic": ("stop_sequences", "stop_sequence")}[provider]
    stopped = ask(server, provider, "one two three", **{name: [" three"]})
    assert (text_of(stopped), finish_of(stopped)) == ("one two", finish)


@both
def test_structured_answers(loopback, provider):
    asked = {"type": "object", "properties": {"text": {"type": "string"}, "n": {"type": "integer", "maximum": 3}}}
    if provider == "openai":
        form = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": asked}}}
    else:
        form = {"output_config": {"format": {"type": "json_schema", "schema": asked}}}
    answer = json.loads(text_of(ask(loopback(), provider, "Hello", **form)))
    assert answer["text"] == "Hello"
    assert answer["n"] in range(4)


def test_openai_extras(loopback):
    answer = ask(loopback(), "openai", "Hello", max_completion_tokens=1, logprobs=True, seed=7)
    assert finish_of(answer) == "length"
    assert [entry.token for entry in answer.choices[0].logprobs.content] == ["Hell"]


@both
def test_refuses_what_the_providers_refuse(loopback, provider):
    server, sdk = loopback(models=["model-1"]), SDK[provider]
    with pytest.raises(sdk.NotFoundError):
        ask(server, provider, "Hi", model="model-2")
    with pytest.raises(sdk.BadRequestError):
        ask(server, provider, messages=[])
    with pytest.raises(sdk.BadRequestError):
        ask(server, provider, "Hi", max_tokens=0)
    assert server.completed == 0


@both
def test_insists_on_its_key(loopback, provider):
    async def with_key(server, key):
        async with client_for(server, provider, key=key) as client:
            return await send(client, "Hi")

    with pytest.raises(SDK[provider].AuthenticationError):
        asyncio.run(with_key(loopback(), "sk-wrong"))
    assert text_of(asyncio.run(with_key(loopback(key=None), "sk-wrong"))) == "Hi"


@both
def test_lists_models(loopback, provider):
    async def names(server):
        async with client_for(server, provider) as client:
            return [model.id async for model in client.models.list()], (await client.models.retrieve("a/b")).id

    assert asyncio.run(names(loopback(models=["a/b", "c"]))) == (["a/b", "c"], "a/b")


@both
def test_rate_limit_headers_and_refusal(loopback, provider):
    server = loopback(rpm=12, tpm=60_000, burst_seconds=0.5)
    raw = ask(server, provider, "Hi", raw=True)
    headers = raw.headers
    assert headers[{"openai": "x-request-id", "anthropic": "request-id"}[provider]] == "req_00000001"
    if provider == "openai":
        assert headers["x-ratelimit-limit-requests"] == "12"
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert 4 < float(headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 5
        assert headers["x-ratelimit-remaining-tokens"] == str(500 - server.calls[0].usage.total)
    else:
        assert headers["anthropic-ratelimit-requests-limit"] == "12"
        assert headers["anthropic-ratelimit-requests-remaining"] == "0"
        assert headers["anthropic-ratelimit-tokens-reset"].endswith("Z")
    answers = ask_all(server, provider, ["Hi"] * 3)
    refused = [answer for answer in answers if isinstance(answer, SDK[provider].RateLimitError)]
    assert len(refused) >= 2
    assert float(refused[0].response.headers["retry-after"]) >= 1
    assert sum(call.limited for call in server.calls) == len(refused)


def test_buckets_refill_steadily():
    now = [0.0]
    limiter = RateLimiter(60, 300, burst_seconds=2, clock=lambda: now[0])
    assert [limiter.admit(5)[0] for _ in range(2)] == [0.0, 0.0]
    assert limiter.admit(2) == (1.0, "requests")
    now[0] = 1.0
    assert limiter.admit(8) == (0.6, "tokens")
    now[0] = 1.6
    assert limiter.admit(8)[0] == 0
    state = limiter.state()
    assert (state.requests.remaining, state.tokens.limit, state.tokens.reset_seconds) == (0, 300, 2.0)


@both
@transports
def test_accounts_are_exact(loopback, provider, backend):
    server = loopback(latency=0.1)
    texts = [f"question {index % 20}" for index in range(40)]
    answers = ask_all(server, provider, texts, backend)
    assert [text_of(answer) for answer in answers] == texts
    stats = server.stats()
    assert (stats["calls"], stats["completed"], stats["completed_distinct"], stats["in_flight"]) == (40, 40, 20, 0)
    assert 1 < stats["in_flight_peak"] == server.in_flight_peak <= 40
    assert stats["billed_usage"]["output_tokens"] == sum(count_tokens(text) for text in texts)
    assert stats["models"].keys() == {f"{provider}/model-1"}
    assert sorted({call.attempt for call in server.calls}) == [1, 2]
    with urllib.request.urlopen(f"{server.url}/_stats?records=1") as answer:
        assert json.load(answer)["records"][0]["key"] == server.calls[0].key
    server.reset()
    assert server.calls == []


def test_key_is_the_body_whatever_its_order():
    assert canonical_key("openai", {"a": 1, "b": "\ud800"}) == canonical_key("openai", {"b": "\ud800", "a": 1})
    assert canonical_key("openai", {"a": 1}) != canonical_key("anthropic", {"a": 1})


def test_the_ledger_counts_open_calls():
    ledger = Ledger()
    first, second = ledger.arrive("openai"), ledger.arrive("openai")
    ledger.leave(first)
    ledger.leave(ledger.arrive("openai"))
    assert (ledger.in_flight, ledger.in_flight_peak, len(ledger.calls)) == (1, 2, 3)
    ledger.reset()
    ledger.leave(second)
    assert (ledger.in_flight, ledger.in_flight_peak, ledger.calls) == (0, 0, [])


def test_a_caller_that_leaves_is_billed_but_not_completed(loopback):
    server = loopback(latency=1.0)
    with pytest.raises(openai.APITimeoutError):
        ask(server, "openai", "Hi", timeout=0.1)
    assert server.stats()["in_flight"] == 1
    while server.stats()["in_flight"]:
        time.sleep(0.02)
    assert (server.stats()["completed"], server.stats()["billed"]) == (0, 1)


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b"[" * 100_000, b"\xff"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_malformed_requests_get_a_400(loopback, path, body):
    server = loopback(key=None)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(f"{server.url}{path}", body, {"anthropic-version": "2023-06-01"}))
    assert caught.value.code == 400
    assert json.load(caught.value)["error"]["message"]


def test_runs_as_a_process():
    with LoopbackProcess("--behaviour", "echo", "--latency", "0.01", "--rpm", "600") as server:
        assert [text_of(answer) for answer in ask_all(server, "openai", ["a", "b"])] == ["a", "b"]
        assert server.stats(records=True)["records"][1]["completed"]
        server.reset()
        assert server.stats()["calls"] == 0


def test_help_and_port_in_use(loopback):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.loopback", "--help"]
    assert "--fault-rate" in subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    port = loopback().url.rsplit(":", 1)[1]
    with pytest.raises(OSError, match="address already in use"):
        loopback(port=int(port))


@pytest.mark.parametrize("module", [openai_wire, reviser, schema], ids=lambda module: module.__name__)
def test_examples_in_docstrings(module):
    module = sys.modules[module.__module__] if callable(module) else module
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed
