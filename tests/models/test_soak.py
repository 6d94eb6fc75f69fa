"""Thousands of calls, a fifth of them with a fault: every row ends answered or rejected for the right reason, none twice.

Half of them through either SDK. FIGA_SOAK_CALLS=5000 makes it a long one, of some minutes.
"""

from __future__ import annotations

import os
import resource
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tenacity import wait_none

from pipeline.errors import RowReject
from pipeline.models import retry
from pipeline.models.journal import Answer, Journal
from tests.loopback import PASSING_FAULTS, FaultPlan, LoopbackServer, faults
from tests.models.asking import KEYS, PROVIDERS, address, ask_all, model_at

CALLS = int(os.environ.get("FIGA_SOAK_CALLS", "1000")) // 2
ATTEMPTS = 3
CANARY = "sk-canary-0123456789abcdef"
# Two seconds is the least that a date can ask for: one of them holds everybody, so they have tests of their own.
DRAWN = [fault for fault in PASSING_FAULTS if fault != faults.RATE_DATE]
USELESS = {
    faults.REFUSED: {"refused"},
    faults.FILTERED: {"content_filter", "refused"},
    faults.WHITESPACE: {"empty_answer"},
    faults.EMPTY_CHOICES: {"empty_choices", "empty_answer"},
    faults.BAD_REQUEST: {"bad_request"},
}
# The last fault that a row met, and what it is then rejected for.
REASONS = USELESS | {
    **{fault: {"rate_limited"} for fault in faults.RATE_FAULTS},
    **{fault: {"server_error"} for fault in faults.RETRYABLE_STATUSES},
    **{fault: {"connection_lost"} for fault in faults.SOCKET_FAULTS},
    **{fault: {"malformed_answer"} for fault in faults.BODY_FAULTS},
    faults.TIMEOUT_STATUS: {"timed_out"},
    faults.HANG: {"timed_out"},
    faults.TRICKLE: {"timed_out"},
    faults.HTML: {"html_answer"},
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackServer]:
    monkeypatch.setattr(retry, "_backoff", wait_none())
    monkeypatch.setattr(retry, "BREAKER", 1000)
    for variable in KEYS.values():
        monkeypatch.setenv(variable, CANARY)
    # Those that cost the whole time-out are rarer, and those that end a row at once.
    weights = dict.fromkeys(DRAWN, 5.0) | dict.fromkeys(USELESS, 2.0) | {faults.HANG: 1.0, faults.TRICKLE: 1.0}
    plan = FaultPlan.random(
        0.2, seed=7, faults=weights, keyed_by="content", retry_after=0.01, hang_seconds=5, trickle_interval=0.1
    )
    with LoopbackServer(faults=plan, key=CANARY) as server:
        yield server


@pytest.mark.parametrize("provider", PROVIDERS)
def test_soak(server: LoopbackServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, provider: str) -> None:
    journal = Journal(tmp_path / "journal.db")
    model = model_at(address(server, provider), journal, provider, concurrency=48, attempts=ATTEMPTS, timeout_s=0.6)
    texts = [f"question {index}" for index in range(CALLS)]
    half = CALLS // 2
    results = ask_all(model, texts[:half], workers=48)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results += ask_all(model, texts[half:], workers=48)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak

    calls = server.calls
    tried = Counter(call.key for call in calls)
    assert len(results) == len(tried) == CALLS
    assert max(tried.values()) <= ATTEMPTS
    # On a busy machine a call may time out before the server hears of it.
    assert len(calls) <= model.calls == journal.all_calls() <= CALLS * ATTEMPTS
    # Joined by what was asked: no answer is another row's.
    answers = {text: result for text, result in zip(texts, results, strict=True) if isinstance(result, Answer)}
    assert all(answer.text == text for text, answer in answers.items())
    useless = {reason for fault, reasons in USELESS.items() if fault != faults.BAD_REQUEST for reason in reasons}
    kept = [result for result in results if isinstance(result, Answer) or result.reason in useless]
    assert journal.calls() == {"sample": len(kept)}
    assert len(answers) > 0.9 * CALLS

    last = {call.key: call for call in calls}
    rejected = Counter(result.reason for result in results if isinstance(result, RowReject))
    possible = Counter(fault for call in last.values() if (fault := call.fault) and fault != faults.WRONG_CONTENT_TYPE)
    assert sum(rejected.values()) == CALLS - len(answers)
    # A busy machine may be too slow for a call without fault: it then ends as a time-out as well.
    assert set(rejected) <= set().union(*(REASONS[fault] for fault in possible), {"timed_out"})
    passing = set().union(*(REASONS[fault] for fault in DRAWN if fault != faults.WRONG_CONTENT_TYPE))
    for result in results:
        if isinstance(result, RowReject):
            assert result.retryable == (result.reason in passing)
            assert CANARY not in str(result.evidence)
    # In kB: the second half needs little more than its results and what the server, of this process too, notes of calls.
    assert grown < 16_000 + 4 * CALLS
    # All of it again: only what was not answered is asked.
    before = len(server.calls)
    ask_all(model, list(answers), workers=48)
    assert len(server.calls) == before
    assert CANARY not in caplog.text
    assert not any(CANARY.encode() in path.read_bytes() for path in tmp_path.iterdir())
