"""A server that counts requests and tokens a minute: the calls settle just below, few are refused, none stalls."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from pipeline.models.journal import Answer, Journal
from tests.loopback import LoopbackServer
from tests.models.asking import KEYS, address, ask_all, model_at

WORKERS = 16


@pytest.mark.parametrize(
    ("provider", "hints", "limits"),
    [
        ("openai", "all", {"rpm": 1800, "tpm": 300_000}),
        ("anthropic", "all", {"rpm": 1800, "tpm": 300_000}),
        pytest.param("openai", "all", {"rpm": 9000, "tpm": 18_000}, marks=pytest.mark.slow),
        ("openai", "none", {"rpm": 1800}),
    ],
)
def test_calls_settle_below_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str, hints: str, limits: dict[str, int]
) -> None:
    monkeypatch.setenv(KEYS[provider], "sk-loopback")
    texts = [f"question {index} {'word ' * (index % 9)}" for index in range(150)]
    with LoopbackServer(latency=0.02, burst_seconds=2, hints=hints, **limits) as server:
        model = model_at(
            address(server, provider), Journal(tmp_path / "journal.db"), provider, concurrency=WORKERS, attempts=9
        )
        results = ask_all(model, texts, workers=WORKERS)
        calls = server.calls
    assert all(isinstance(result, Answer) for result in results)
    # The calls that are under way before the first answer can't know; without headers only refusals tell of the limit.
    settled = calls[len(calls) // 3 :]
    if hints == "all":
        assert sum(call.limited for call in settled) <= 0.1 * len(settled)
    assert sum(call.limited for call in calls) <= 0.3 * len(calls)
    times = sorted(call.time for call in calls if call.completed)
    assert max(late - early for early, late in itertools.pairwise(times)) < 3
