"""How fast a server lets us go when it doesn't say: a pace against simulated servers, without a clock."""

from __future__ import annotations

import math
import random
from collections import deque

import pytest

from pipeline.models.pace import Pace


def simulate(
    limit: float, seconds: float, *, refuse: float = 0.0, burst: float = 5.0, most: float = 500.0, latency: float = 0.0
) -> tuple[float, float, float]:
    """A pace against a bucket of `limit` a second: (let in a second, share refused) of the later half, final pace.

    `most` calls a second are asked at most, answers come after `latency`, and a share `refuse` is refused whatever the pace.
    """
    chance = random.Random(0)
    pace, clock, level, full = Pace(), 0.0, limit * burst, limit * burst
    late = [0, 0]
    number = cut = 0
    under_way: deque[tuple[float, int, int, bool]] = deque()
    while clock < seconds:
        step = max(1 / most, 1 / pace.rate)
        clock += step
        level = min(full, level + limit * step)
        number += 1
        refused = level < 1 or chance.random() < refuse
        level -= not refused
        late[refused] += clock > seconds / 2
        under_way.append((clock + latency, number, pace.started(), refused))
        while under_way and under_way[0][0] <= clock:
            at, which, started, was_refused = under_way.popleft()
            if not was_refused:
                pace.let_in(at)
                continue
            pace.refused(at, started, counts=which > cut)
            cut = number if which > cut else cut
    return late[0] / (seconds / 2), late[1] / sum(late), pace.rate


@pytest.mark.parametrize(("limit", "latency"), [(1.0, 0.0), (10.0, 0.0), (100.0, 0.0), (1.0, 0.1), (10.0, 0.1)])
def test_a_limit_that_nobody_tells_is_found_from_refusals_alone(limit: float, latency: float) -> None:
    let_in, refused, _ = simulate(limit, 2000 / limit, latency=latency)
    assert 0.9 * limit <= let_in <= limit * 1.01
    assert refused < 0.02


@pytest.mark.parametrize(
    ("refuse", "latency", "share"), [(0.05, 0.0, 0.8), (0.05, 0.1, 0.8), (0.2, 0.1, 0.6), (0.3, 0.1, 0.5)]
)
@pytest.mark.parametrize(("most", "seconds"), [(500.0, 20.0), (10.0, 600.0)])
def test_refusals_that_have_nothing_to_do_with_our_pace_do_not_slow_us_down_for_ever(
    most: float, seconds: float, refuse: float, latency: float, share: float
) -> None:
    let_in, _, pace = simulate(1e6, seconds, refuse=refuse, most=most, latency=latency)
    assert let_in > share * most
    if most == 500:
        assert pace > share * most


def test_whoever_is_refused_at_any_pace_begins_anew() -> None:
    pace = Pace()
    paces = []
    for second in range(1, 200):
        pace.let_in(second)
        pace.refused(second + 0.5, pace.started(), counts=True)
        paces.append(pace.rate)
    for second in range(200, 400):
        pace.refused(second, pace.started(), counts=True)
        paces.append(pace.rate)
    assert min(paces) > 0.005 and math.inf in paces[200:]


def test_calls_under_way_at_a_refusal_are_not_taken_for_later_ones() -> None:
    pace = Pace()
    wave = [pace.started() for _ in range(50)]
    pace.let_in(0.1)
    pace.refused(0.2, wave[1], counts=True)
    for _ in wave[2:]:
        pace.let_in(0.3)
    for call in range(100):
        pace.started()
        pace.let_in(0.3 + call / 10)
    pace.refused(10.2, pace.started(), counts=True)
    assert pace.rate == pytest.approx(9)
