"""The limiter: how many calls at a time, who waits for what, and what the server's headers do to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from typing import Any

import pytest
from tenacity import AsyncRetrying, RetryCallState

from pipeline.models.error_words import wait_by_headers
from pipeline.models.event_loop import run
from pipeline.models.limiter import Call, Limiter, limiter_for
from pipeline.models.provider_errors import Transient
from pipeline.models.providers import read_quotas
from pipeline.models.retry import retry_wait

OVERLOADED = Transient("server_error", "status 529", status=529)
REFUSED = Transient("rate_limited", "status 429", status=429)
SLOW = Transient("timed_out", "no answer")
BROKEN = Transient("server_error", "status 500", status=500)


def go(work: Coroutine[Any, Any, Any]) -> Any:
    return run(asyncio.wait_for(work, 10))


async def started(limiter: Limiter, calls: int, most: int = 10) -> list[Call]:
    return [await limiter.start(most) for _ in range(calls)]


@pytest.mark.parametrize("error", [OVERLOADED, SLOW, REFUSED, Transient("server_error", "", status=503)])
def test_one_congestion_halves_once_however_many_calls_it_hits(error: Transient) -> None:
    async def work() -> list[float]:
        limiter = Limiter(16)
        windows = []
        for _ in range(2):
            calls = await started(limiter, int(limiter.window))
            for call in calls:
                limiter.end(call, error)
            windows.append(limiter.window)
        return windows

    assert go(work()) == [8, 4]


def test_other_failures_are_no_congestion() -> None:
    async def work() -> float:
        limiter = Limiter(16)
        for call in await started(limiter, 16):
            limiter.end(call, BROKEN)
        return limiter.window

    assert go(work()) == 16


def test_a_refusal_at_a_known_rate_lowers_that_rate_alone() -> None:
    """A small window would starve slow calls."""

    async def work() -> tuple[float, float]:
        limiter = Limiter(16)
        limiter.learned.rate = 1000.0
        limiter.end(await limiter.start(10), REFUSED)
        return limiter.window, limiter.learned.rate

    assert go(work()) == (16, 1000.0)


def test_the_window_grows_back_step_by_step_but_not_beyond_its_bound_nor_below_one() -> None:
    async def work() -> tuple[float, int]:
        limiter = Limiter(16)
        for _ in range(10):
            limiter.end(await limiter.start(10), OVERLOADED)
        lowest, rounds = limiter.window, 0
        while limiter.window < 16:
            rounds += 1
            for call in await started(limiter, int(limiter.window)):
                limiter.end(call, None)
        for call in await started(limiter, 16):
            limiter.end(call, None)
        assert limiter.window == 16
        return lowest, rounds

    lowest, rounds = go(work())
    assert lowest == 1
    assert 8 <= rounds <= 32


def test_waiters_start_in_order_as_places_become_free() -> None:
    async def work() -> list[int]:
        limiter = Limiter(2)
        order: list[int] = []

        async def one(number: int) -> None:
            with await limiter.start(10):
                order.append(number)
                await asyncio.sleep(0.002)

        await asyncio.gather(*(one(number) for number in range(20)))
        return order

    assert go(work()) == list(range(20))


def test_a_waiter_that_leaves_takes_no_place_with_it() -> None:
    async def work() -> None:
        limiter = Limiter(1)
        held = await limiter.start(10)
        waiting = [asyncio.ensure_future(limiter.start(10)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        limiter.end(held, None)
        # Granted and cancelled in the same moment: the place goes on to the next.
        waiting[1].cancel()
        limiter.end(await waiting[2], None)
        limiter.end(await limiter.start(10), None)

    go(work())


def test_a_pause_holds_everybody() -> None:
    async def work() -> list[float]:
        limiter = Limiter(8)
        limiter.pause(0.15)
        begin = time.monotonic()

        async def one() -> float:
            with await limiter.start(10):
                return time.monotonic() - begin

        return list(await asyncio.gather(*(one() for _ in range(8))))

    assert min(go(work())) >= 0.149


def test_fixed_rates_are_kept() -> None:
    async def work(limiter: Limiter, most: int) -> float:
        begin = time.monotonic()
        for _ in range(15):
            with await limiter.start(most) as call:
                call.used = most
        return time.monotonic() - begin

    # 600 a minute: ten at once, five more in half a second; tokens likewise.
    assert go(work(Limiter(8, rpm=600), 10)) >= 0.45
    assert go(work(Limiter(8, tpm=6000), 10)) >= 0.45


def test_models_of_one_identity_share_a_limiter_and_its_last_user_takes_it_away() -> None:
    same, other = {"provider": "openai", "model": "m", "base_url": "u"}, {"provider": "openai", "model": "n"}
    first = limiter_for(same, 4, None, None)
    assert limiter_for(other, 4, None, None) is not first
    assert limiter_for(dict(same), 8, 600, None) is first
    assert first.window == 8
    assert first._fixed["requests"].rate == 10
    first.window = 1
    del first
    assert limiter_for(same, 4, None, None).window == 4


def openai_headers(**values: str) -> dict[str, str]:
    return {f"x-ratelimit-{name.replace('_', '-')}": value for name, value in values.items()}


@pytest.mark.parametrize(
    ("reset", "rate"),
    [
        ("0s", 10.0),
        ("1m0s", 10.0),
        ("60", 10.0),
        ("1h0m0s", 1 / 6),
        ("500ms", 10.0),
        ("6m0s", 5 / 3),
        ("", 10.0),
        ("soon", 10.0),
    ],
)
def test_openai_headers(reset: str, rate: float) -> None:
    quotas = read_quotas(openai_headers(limit_requests="600", remaining_requests="0", reset_requests=reset))
    assert quotas.keys() == {"requests"}
    assert quotas["requests"].rate == pytest.approx(rate)
    assert quotas["requests"].remaining == 0


def test_anthropic_headers() -> None:
    full = (datetime.now(UTC) + timedelta(seconds=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
    names = {"limit": "6000", "remaining": "3000", "reset": full}
    quotas = read_quotas({f"anthropic-ratelimit-tokens-{name}": value for name, value in names.items()})
    assert quotas["tokens"].rate == pytest.approx(100, rel=0.05)
    assert quotas["tokens"].capacity == pytest.approx(6000, rel=0.05)


@pytest.mark.parametrize("value", ["", "many", "nan", "inf", "-1", "0", "1e400"])
def test_headers_without_sense_are_no_limit(value: str) -> None:
    assert read_quotas(openai_headers(limit_requests=value, remaining_requests="5", reset_requests="1s")) == {}
    assert read_quotas({}) == {}


def test_what_the_server_tells_counts_calls_that_it_had_not_seen() -> None:
    async def work() -> tuple[int, int]:
        limiter = Limiter(64)
        calls = await started(limiter, 10)
        # Told to the third call: seven more were on their way by then, so three of ten are left.
        headers = openai_headers(limit_requests="10", remaining_requests="10", reset_requests="0s")
        limiter.announced(calls[2], read_quotas(headers))
        # What an earlier call is told is older news.
        older = openai_headers(limit_requests="10", remaining_requests="0", reset_requests="60s")
        limiter.announced(calls[1], read_quotas(older))
        free = 0
        while limiter._delay(10) <= 0:
            await limiter.start(10)
            free += 1
        return free, len(calls)

    assert go(work()) == (3, 10)


def test_a_learned_use_of_tokens_replaces_the_worst_case() -> None:
    async def work() -> float:
        limiter = Limiter(4)
        for _ in range(60):
            with await limiter.start(1000) as call:
                call.used = 100
        return limiter._expected(1000)

    assert 100 <= go(work()) < 150


def test_waits_that_servers_ask_for() -> None:
    soon = formatdate(time.time() + 30, usegmt=True)
    asked = {"retry-after-ms": "1500"}, {"retry-after": "2"}, {"retry-after": "0.5"}, {"retry-after": soon}, {}
    assert [wait_by_headers(headers) for headers in asked[:3]] == [1.5, 2.0, 0.5]
    assert 28 < (wait_by_headers(asked[3]) or 0) <= 30
    for nothing in ("", "-5", "later", "Fri, 99 Foo 2020", "nan"):
        assert wait_by_headers({"retry-after": nothing}) is None
    assert wait_by_headers({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert (wait_by_headers({"retry-after": "9" * 30}) or 0) > 1e20
    assert wait_by_headers({"retry-after-ms": "soon", "retry-after": "9"}) == 9


@pytest.mark.parametrize(
    ("asked", "least", "most"), [(7.0, 7.0, 8.0), (1e9, 120.0, 121.0), (0.0, 4.0, 5.1), (None, 4.0, 5.1)]
)
def test_a_wish_is_kept_and_now_is_none(asked: float | None, least: float, most: float) -> None:
    """A refusal that says "at once", or a date that our clock has passed, must not use up all tries in a moment."""
    state = RetryCallState(AsyncRetrying(), None, (), {})
    state.attempt_number = 4
    state.set_exception((Transient, Transient("rate_limited", "429", asked), None))
    assert least <= retry_wait(state) <= most


@pytest.mark.parametrize("reset", ["inf", "1e300", "99999999d", "nan"])
def test_a_reset_that_no_provider_has_is_not_waited_for(reset: str) -> None:
    quotas = read_quotas(openai_headers(limit_requests="600", remaining_requests="0", reset_requests=reset))
    assert quotas["requests"].rate == pytest.approx(10)
