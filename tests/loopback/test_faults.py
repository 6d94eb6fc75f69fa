"""Each fault as both real SDKs show it, with retries off. This table is what the pipeline's retry policy is built on.

Written against openai 3.54 and anthropic 2.12; a line that fails after an upgrade is news, not noise.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import threading
import time

import pytest

from tests.loopback import ALL_FAULTS, FaultPlan, LoopbackServer, faults
from tests.loopback.clients import BACKENDS, PROVIDERS, ask, client_for, finish_of, send, text_of
from tests.loopback.test_behaviours import request

# Exceptions, as (openai, anthropic); one name where they agree. The status follows where the fault's name isn't it.
RAISES = {
    **dict.fromkeys(faults.RATE_FAULTS, "RateLimitError"),
    faults.QUOTA: ("RateLimitError", "PaymentRequiredError"),
    faults.TIMEOUT_STATUS: ("APIStatusError", "RequestTimeoutError"),
    faults.CONFLICT: "ConflictError",
    faults.SERVER_ERROR: "InternalServerError",
    faults.BAD_GATEWAY: "InternalServerError",
    faults.UNAVAILABLE: ("InternalServerError", "ServiceUnavailableError"),
    faults.GATEWAY_TIMEOUT: ("InternalServerError", "GatewayTimeoutError"),
    faults.OVERLOADED: ("InternalServerError", "OverloadedError"),
    faults.BAD_REQUEST: "BadRequestError",
    faults.UNAUTHORISED: "AuthenticationError",
    faults.FORBIDDEN: "PermissionDeniedError",
    faults.NOT_FOUND: "NotFoundError",
    faults.UNPROCESSABLE: "UnprocessableEntityError",
    faults.RESET_BEFORE_HEADERS: "APIConnectionError",
    faults.RESET_AFTER_HEADERS: "APIConnectionError",
    faults.CLOSE_BEFORE_HEADERS: "APIConnectionError",
    faults.HALF_BODY: "APIConnectionError",
    faults.HANG: "APITimeoutError",
    # The SDKs' time-outs count silence alone: only a deadline around the call ends a trickle.
    faults.TRICKLE: "TimeoutError",
    # Neither SDK wraps this: no status, no response; the exception's `doc` holds the whole body.
    faults.MALFORMED_JSON: "JSONDecodeError",
    faults.EMPTY_BODY: "JSONDecodeError",
}
# openai's aiohttp transport takes a dropped connection for a connect time-out.
RAISES_OTHERWISE = {
    (faults.RESET_BEFORE_HEADERS, "openai", "aiohttp"): "APITimeoutError",
    (faults.CLOSE_BEFORE_HEADERS, "openai", "aiohttp"): "APITimeoutError",
}
STATUS = {**dict.fromkeys(faults.RATE_FAULTS, 429), faults.QUOTA: {"openai": 429, "anthropic": 402}}
# What comes back as if nothing were wrong: (openai, anthropic).
RETURNS = {
    faults.HTML: ("str", "str"),
    faults.ERROR_BODY: ("choices=None", "content=None"),
    faults.WRONG_CONTENT_TYPE: ("stop 'Hello there'", "end_turn 'Hello there'"),
    faults.EMPTY_CHOICES: ("choices=[]", "content=[] end_turn"),
    faults.NULL_CONTENT: ("stop None", "content=None"),
    faults.EMPTY_TEXT: ("stop ''", "content=[] end_turn"),
    faults.WHITESPACE: ("stop ' \\n\\t '", "end_turn ' \\n\\t '"),
    faults.REFUSED: ("stop None refusal", "content=[] refusal"),
    faults.FILTERED: ("content_filter ''", "content=[] refusal"),
    faults.CUT: ("length 'Hello'", "max_tokens 'Hello'"),
}
BILLED = {
    *faults.ANSWER_FAULTS,
    "half_body",
    "reset_after_headers",
    "trickle",
    "malformed_json_200",
    "wrong_content_type",
}
COMPLETED = {*faults.ANSWER_FAULTS, faults.WRONG_CONTENT_TYPE}
PATIENCE = {faults.HANG: {"timeout": 0.25}, faults.TRICKLE: {"timeout": 0.25, "deadline": 0.6}}


@pytest.fixture(scope="module")
def server():
    with LoopbackServer() as server:
        yield server


def outcome(server, provider, backend, *, timeout=5.0, deadline=10.0):
    """The answer or the exception; `timeout` is the SDK's, `deadline` our own around it."""

    async def bounded():
        async with client_for(server, provider, backend, timeout=timeout) as client:
            return await asyncio.wait_for(send(client, "Hello there"), deadline)

    try:
        return asyncio.run(bounded())
    except Exception as error:
        return error


def described(answer):
    if isinstance(answer, str):
        return "str"
    if hasattr(answer, "choices"):
        if not answer.choices:
            return f"choices={answer.choices}"
        refused = " refusal" if answer.choices[0].message.refusal else ""
        return f"{finish_of(answer)} {text_of(answer)!r}{refused}"
    if not answer.content:
        return f"content={answer.content} {answer.stop_reason if answer.content == [] else ''}".strip()
    return f"{finish_of(answer)} {text_of(answer)!r}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("fault", ALL_FAULTS)
def test_what_the_sdks_make_of_it(server, fault, provider, backend):
    server.reset()
    server.engine.faults = FaultPlan.always(fault, trickle_interval=0.02)
    seen = outcome(server, provider, backend, **PATIENCE.get(fault, {}))
    if fault in RAISES:
        names = RAISES_OTHERWISE.get((fault, provider, backend), RAISES[fault])
        expected = names if isinstance(names, str) else names[PROVIDERS.index(provider)]
        assert type(seen).__name__ == expected, repr(seen)
        _check_status(seen, fault, provider)
    else:
        assert described(seen) == RETURNS[fault][PROVIDERS.index(provider)]
    _check_ledger(server, fault)


def _check_status(error, fault, provider):
    status = STATUS.get(fault, int(fault) if fault.isdigit() else None)
    if isinstance(status, dict):
        status = status[provider]
    assert getattr(error, "status_code", None) == status
    if status is not None:
        assert error.request_id == "req_00000001"
        assert error.response.headers["content-type"]
        assert fault == faults.BAD_GATEWAY or error.body


def _check_ledger(server, fault):
    deadline = time.monotonic() + 2
    while server.stats()["in_flight"] and time.monotonic() < deadline:
        time.sleep(0.01)
    [call] = server.calls
    assert (call.fault, call.completed, call.billed) == (fault, fault in COMPLETED, fault in BILLED)


def test_the_table_is_complete():
    assert {*RAISES, *RETURNS} == set(ALL_FAULTS)
    assert not RAISES.keys() & RETURNS.keys()


def test_when_to_come_back(server):
    def header(fault, name="retry-after"):
        server.engine.faults = FaultPlan.always(fault, retry_after=2.5)
        return outcome(server, "openai", "httpx2").response.headers.get(name)

    assert header(faults.RATE_SECONDS) == "2.5"
    assert header(faults.RATE_MS, "retry-after-ms") == "2500"
    assert header(faults.RATE_ABSURD) == "1000000000"
    assert header(faults.RATE_BARE) is None
    assert 1.5 < email.utils.parsedate_to_datetime(header(faults.RATE_DATE)).timestamp() - time.time() <= 4


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_nobody_listens(provider, backend):
    with LoopbackServer() as server:
        pass
    seen = outcome(server, provider, backend)
    expected = RAISES_OTHERWISE.get((faults.CLOSE_BEFORE_HEADERS, provider, backend), "APIConnectionError")
    assert type(seen).__name__ == expected


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("fault", [faults.HANG, faults.CLOSE_BEFORE_HEADERS, faults.RESET_BEFORE_HEADERS])
def test_a_time_out_has_a_time_out_among_its_causes(server, fault, provider, backend):
    """The way to tell a real time-out from a dropped connection, whatever the exception is called."""
    server.engine.faults = FaultPlan.always(fault)
    error = outcome(server, provider, backend, **PATIENCE.get(fault, {}))
    causes = []
    while error is not None:
        causes.append(error)
        error = error.__cause__ or error.__context__
    assert any(isinstance(cause, TimeoutError) for cause in causes) == (fault == faults.HANG), causes


def test_plans(loopback):
    server = loopback(faults=FaultPlan.listed(["500", None, "529"]))
    statuses = []
    for _ in range(4):
        seen = outcome(server, "openai", "httpx2")
        statuses.append(getattr(seen, "status_code", 200))
    assert statuses == [500, 200, 529, 200]
    attempts = FaultPlan.by_attempt(["500", "503"])
    assert [attempts.draw(9, request("a"), attempt) for attempt in (1, 2, 3)] == ["500", "503", None]
    with pytest.raises(ValueError, match="unknown fault"):
        FaultPlan.always("no such")


def test_random_plans_depend_on_seed_and_key_alone():
    def drawn(plan, text="a"):
        return [plan.draw(number, request(text), 1) for number in range(1, 2001)]

    first = drawn(FaultPlan.random(0.2, seed=1))
    assert first == drawn(FaultPlan.random(0.2, seed=1), "b")
    assert first != drawn(FaultPlan.random(0.2, seed=2))
    assert 300 < sum(fault is not None for fault in first) < 500
    assert set(first) - {None} == set(faults.PASSING_FAULTS)
    weighted = drawn(FaultPlan.random(1.0, faults={"500": 9, "503": 1}))
    assert 1650 < weighted.count("500") < 1950
    by_content = FaultPlan.random(0.5, keyed_by="content")
    assert len(set(drawn(by_content))) == 1
    assert len({by_content.draw(1, request(str(index)), 1) for index in range(50)}) > 5


def test_stops_at_once_while_a_call_hangs():
    with LoopbackServer(faults=FaultPlan.always(faults.HANG, hang_seconds=60)) as server:
        caller = threading.Thread(target=outcome, args=(server, "openai", "aiohttp"), kwargs={"timeout": 30})
        caller.start()
        while not server.stats()["in_flight"]:
            time.sleep(0.01)
        started = time.monotonic()
    caller.join()
    assert time.monotonic() - started < 3


def test_malformed_json_carries_the_body(server):
    server.engine.faults = FaultPlan.always(faults.MALFORMED_JSON)
    error = outcome(server, "openai", "aiohttp")
    assert isinstance(error, json.JSONDecodeError)
    assert error.doc.startswith('{"id": "chatcmpl-')


def test_raw_responses_keep_headers_of_a_bad_body(server):
    """The way to a status and a request id where the plain call has lost them."""
    for fault in (faults.HTML, faults.MALFORMED_JSON):
        server.reset()
        server.engine.faults = FaultPlan.always(fault)
        raw = ask(server, "openai", "Hello", raw=True)
        assert (raw.status_code, raw.headers["x-request-id"]) == (200, "req_00000001")
