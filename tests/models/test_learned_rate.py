"""How many calls a minute a server admits when it doesn't say: a learned rate against simulated servers, without a clock."""

from __future__ import annotations

import math
import random
from collections import deque

import pytest

from pipeline.models.limiter import LearnedRate


def simulate(
    limit: float, seconds: float, *, refuse: float = 0.0, burst: float = 5.0, most: float = 500.0, latency: float = 0.0
) -> tuple[float, float]:
    """A learned rate against a bucket of `limit` a second: (admitted a second, share refused) of the later half.

    There are at most `most` calls a second, responses take `latency`, and a share `refuse` is refused at any rate.
    """
    chance = random.Random(0)
    learned, clock, level, full = LearnedRate(), 0.0, limit * burst, limit * burst
    late = [0, 0]
    under_way: deque[tuple[float, float, bool]] = deque()
    while clock < seconds:
        step = max(1 / most, learned.delay(clock))
        clock += step
        level = min(full, level + limit * step)
        refused = level < 1 or chance.random() < refuse
        level -= not refused
        late[refused] += clock > seconds / 2
        learned.start(clock)
        under_way.append((clock + latency, clock, refused))
        while under_way and under_way[0][0] <= clock:
            at, started, was_refused = under_way.popleft()
            if was_refused:
                learned.refused(started, at)
            else:
                learned.answered(started)
    return late[0] / (seconds / 2), late[1] / sum(late)


@pytest.mark.parametrize(
    ("limit", "latency", "share"),
    [(1.0, 0.0, 0.08), (1.0, 0.1, 0.08), (10.0, 0.0, 0.02), (10.0, 0.1, 0.02), (100.0, 0.0, 0.02), (100.0, 1.0, 0.05)],
)
def test_an_unannounced_limit_is_learned_from_refusals_alone(limit: float, latency: float, share: float) -> None:
    admitted, refused = simulate(limit, 2000 / limit, latency=latency)
    # The later half may use up what the server saved meanwhile.
    assert 0.9 * limit <= admitted <= limit * 1.05
    assert refused < share


@pytest.mark.parametrize(
    ("refuse", "latency", "share"), [(0.05, 0.0, 0.8), (0.05, 0.1, 0.8), (0.2, 0.1, 0.55), (0.3, 0.1, 0.35)]
)
@pytest.mark.parametrize(("most", "seconds"), [(500.0, 20.0), (10.0, 600.0)])
def test_refusals_that_have_nothing_to_do_with_our_rate_do_not_slow_us_down_for_ever(
    most: float, seconds: float, refuse: float, latency: float, share: float
) -> None:
    admitted, _ = simulate(1e6, seconds, refuse=refuse, most=most, latency=latency)
    assert admitted > share * most


def test_a_server_that_refuses_every_call_leaves_no_rate_behind() -> None:
    learned = LearnedRate()
    for second in range(200):
        learned.start(second)
        learned.refused(second, second + 0.5)
    assert learned.rate == math.inf


def test_calls_under_way_at_a_measurement_do_not_count_for_the_next() -> None:
    learned = LearnedRate()
    learned.refused(0.0, 0.0)
    for _ in range(30):
        learned.answered(0.5)
    learned.refused(-0.5, 2.0)
    assert learned.rate == math.inf
    learned.refused(3.0, 3.0)
    assert learned.rate == pytest.approx(9)
