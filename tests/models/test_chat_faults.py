"""Every fault that the loopback server knows, through both SDKs: exception, reason, attempts; and never the key."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tenacity import wait_none

from pipeline.errors import ProviderStopped, RowReject
from pipeline.models import provider_errors, retry
from pipeline.models.cost import Price
from pipeline.models.journal import Answer, Journal
from tests.loopback import ALL_FAULTS, ChatRequest, FaultPlan, LoopbackServer, Reply, faults
from tests.loopback.chat import BadRequest
from tests.loopback.fixtures import loopback  # noqa: F401 - a fixture
from tests.models.asking import KEYS, PROVIDERS, address, ask, caught, model_at

ATTEMPTS = 3
CANARY = "sk-canary-1f2e3d4c5b6a79880123456789abcdef"
STOPPED, ANSWERED = "stops the run", "answered"

# What each fault ends in: the row's reason, and whether it was tried again. (openai, anthropic) where they differ.
AGAIN = {
    **dict.fromkeys(faults.RATE_FAULTS, "rate_limited"),
    faults.TIMEOUT_STATUS: "timed_out",
    faults.CONFLICT: "server_error",
    faults.SERVER_ERROR: "server_error",
    faults.BAD_GATEWAY: "server_error",
    faults.UNAVAILABLE: "server_error",
    faults.GATEWAY_TIMEOUT: "server_error",
    faults.OVERLOADED: "server_error",
    faults.RESET_BEFORE_HEADERS: "connection_lost",
    faults.RESET_AFTER_HEADERS: "connection_lost",
    faults.CLOSE_BEFORE_HEADERS: "connection_lost",
    faults.HALF_BODY: "connection_lost",
    faults.HANG: "timed_out",
    faults.TRICKLE: "timed_out",
    faults.HTML: "html_answer",
    faults.MALFORMED_JSON: "malformed_answer",
    faults.EMPTY_BODY: "malformed_answer",
    faults.ERROR_BODY: "server_error",
}
ONCE = {
    faults.QUOTA: STOPPED,
    faults.UNAUTHORISED: STOPPED,
    faults.FORBIDDEN: STOPPED,
    faults.BAD_REQUEST: "bad_request",
    faults.NOT_FOUND: "bad_request",
    faults.UNPROCESSABLE: "bad_request",
    faults.WRONG_CONTENT_TYPE: ANSWERED,
    faults.CUT: ANSWERED,
    faults.EMPTY_CHOICES: ("empty_choices", "empty_answer"),
    faults.EMPTY_TEXT: "empty_answer",
    faults.WHITESPACE: "empty_answer",
    faults.REFUSED: "refused",
    faults.FILTERED: ("content_filter", "refused"),
}
# OpenAI's null is an answer without text; Anthropic's has no content at all, which its API never gives.
MIXED = {faults.NULL_CONTENT: (("empty_answer", 1), ("malformed_answer", ATTEMPTS))}
CASES = [(fault, provider) for fault in ALL_FAULTS for provider in PROVIDERS]


@pytest.fixture(autouse=True)
def quick_and_keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_backoff", wait_none())
    monkeypatch.setattr(provider_errors, "LONGEST_WAIT_S", 0.01)
    for variable in KEYS.values():
        monkeypatch.setenv(variable, CANARY)


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(key=CANARY) as server:
        yield server


def expected(fault: str, provider: str) -> tuple[str, int]:
    which = PROVIDERS.index(provider)
    if fault in MIXED:
        return MIXED[fault][which]
    reason = AGAIN.get(fault) or ONCE[fault]
    return (reason if isinstance(reason, str) else reason[which]), (ATTEMPTS if fault in AGAIN else 1)


def everything_told(error: object) -> str:
    if not isinstance(error, BaseException):
        return repr(error)
    parts = [str(error), repr(error), *traceback.format_exception(error)]
    if isinstance(error, RowReject):
        parts += [repr(error.evidence), repr(error.columns)]
    return "\n".join(parts)


def journals_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("fault", "provider"), CASES)
def test_every_fault_ends_as_the_policy_says(
    server: LoopbackServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str, provider: str
) -> None:
    caplog.set_level(logging.DEBUG)
    server.reset()
    server.engine.faults = FaultPlan.always(fault, retry_after=0.01, trickle_interval=0.02)
    slow = fault in (faults.HANG, faults.TRICKLE)
    journal = Journal(tmp_path / "journal.db")
    model = model_at(address(server, provider), journal, provider, attempts=ATTEMPTS, timeout_s=0.25 if slow else 20)
    # A dollar a token.
    model.price = Price(1e6, 1e6, 1e6)
    ended = caught(model)
    reason, calls = expected(fault, provider)
    if reason == STOPPED:
        assert isinstance(ended, ProviderStopped), repr(ended)
        wanted = "out of money" if fault == faults.QUOTA else "Check the API key in the environment"
        assert wanted in str(ended)
        assert "run the same command again" in str(ended)
    elif reason == ANSWERED:
        assert isinstance(ended, Answer), repr(ended)
        assert (ended.text, ended.finish) == (("Hello", "length") if fault == faults.CUT else ("Hello there", "stop"))
    else:
        assert isinstance(ended, RowReject), repr(ended)
        assert ended.reason == reason, ended.evidence
        if calls > 1:
            assert ended.evidence["attempts"] == ATTEMPTS
            assert ended.evidence["error"]
    assert len(server.calls) == calls == model.calls
    billed = sum(call.usage.total for call in server.calls if call.usage)
    assert journal.spent() >= billed - 1e-6
    if calls == 1:
        assert journal.spent() == pytest.approx(billed)
        assert journal.uncertain() == 0
    if isinstance(ended, RowReject):
        assert ended.retryable == (calls > 1 or fault == faults.NOT_FOUND)
    assert CANARY not in everything_told(ended)
    assert CANARY not in caplog.text
    assert CANARY.encode() not in journals_bytes(tmp_path)


def test_the_table_is_complete() -> None:
    assert {*AGAIN, *ONCE, *MIXED} == set(ALL_FAULTS)
    assert len(AGAIN) + len(ONCE) + len(MIXED) == len(ALL_FAULTS)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("fault", [fault for fault in AGAIN if fault not in (faults.HANG, faults.TRICKLE)])
def test_a_fault_that_passes_costs_one_more_attempt_and_no_row(
    server: LoopbackServer, tmp_path: Path, fault: str, provider: str
) -> None:
    server.reset()
    server.engine.faults = FaultPlan.listed([fault], retry_after=0.01)
    answer = ask(model_at(address(server, provider), Journal(tmp_path / "journal.db"), provider), "Hello there")
    assert (answer.text, len(server.calls)) == ("Hello there", 2)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_wrong_key_stops_the_run_and_is_not_shown(
    server: LoopbackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    server.reset()
    wrong = CANARY[::-1]
    monkeypatch.setenv(KEYS[provider], wrong)
    ended = caught(model_at(address(server, provider), Journal(tmp_path / "journal.db"), provider))
    assert isinstance(ended, ProviderStopped)
    assert "status 401" in str(ended)
    assert "Check the API key in the environment" in str(ended)
    assert "\n" not in str(ended)
    assert wrong not in everything_told(ended)
    assert len(server.calls) == 1


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_a_key_that_the_server_repeats_is_struck_out(
    loopback: Callable[..., LoopbackServer],  # noqa: F811
    tmp_path: Path,
    provider: str,
    status: int,
) -> None:
    """Gateways do: `Incorrect API key provided: sk-…`."""

    def refuse(request: ChatRequest) -> Reply:
        raise BadRequest(f"Incorrect API key provided: {CANARY}.", status=status)

    server = loopback(refuse, key=CANARY)
    ended = caught(model_at(address(server, provider), Journal(tmp_path / "journal.db"), provider, attempts=1))
    assert isinstance(ended, ProviderStopped if status == 401 else RowReject)
    assert "Incorrect API key provided" in everything_told(ended)
    assert CANARY not in everything_told(ended)


def test_nobody_there_is_a_lost_connection(tmp_path: Path) -> None:
    with LoopbackServer() as gone:
        url = gone.openai_url
    ended = caught(model_at(url, Journal(tmp_path / "journal.db"), attempts=2))
    assert isinstance(ended, RowReject)
    assert ended.reason == "connection_lost"
