"""Prices, and the cap that is never passed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import BudgetReached
from pipeline.models.cost import Budget, Price, in_dollars
from pipeline.models.journal import Answer, Journal
from tests.loopback import ChatRequest, LoopbackServer, Reply
from tests.loopback.fixtures import loopback  # noqa: F401 - a fixture
from tests.models.asking import ask_all, model_at

CENT = 1e-9
# What a call of the last test reserves, at most: some 50 prompt tokens and max_tokens=200 at its prices.
MOST = (60 * 10 + 200 * 30) / 1e6


@pytest.fixture
def prices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Names a table of one's own."""

    def write(content: str) -> Path:
        path = tmp_path / "prices.yaml"
        path.write_text(content)
        monkeypatch.setenv("FIGA_PRICES", str(path))
        return path

    return write


def test_an_answer_costs_its_tokens_the_cached_ones_less() -> None:
    per_million = Price(input=2.0, cached_input=0.5, output=8.0)
    answer = Answer("x", "stop", 100, prompt_tokens=1000, completion_tokens=500, cached_tokens=400)
    assert per_million.of(answer) == pytest.approx((600 * 2.0 + 400 * 0.5 + 500 * 8.0) / 1e6)
    assert per_million.of(Answer("x", "stop", 100)) == 0


@given(
    st.floats(0, 100), st.floats(0, 1), st.floats(0, 100), st.integers(0, 10**6), st.integers(0, 10**5), st.floats(0, 1)
)
def test_no_answer_costs_more_than_the_most(
    fresh: float, discount: float, output: float, prompt: int, completion: int, share: float
) -> None:
    price = Price(fresh, fresh * discount, output)
    answer = Answer("x", "stop", completion, prompt, completion, int(prompt * share))
    assert price.of(answer) <= price.most(prompt, completion) * (1 + CENT) + CENT


@settings(max_examples=300)
@given(
    limit=st.floats(0, 10),
    spent=st.floats(0, 3),
    steps=st.lists(st.tuples(st.floats(0, 4), st.floats(0, 1), st.integers(0, 5)), max_size=40),
)
def test_the_cap_is_never_passed(limit: float, spent: float, steps: list[tuple[float, float, int]]) -> None:
    """Any interleaving: each step reserves, then settles one of the calls in flight, for a share of its reserve."""
    budget = Budget(limit, min(spent, limit))
    paid = min(spent, limit)
    flying: list[float] = []
    for most, share, which in steps:
        try:
            budget.reserve(most)
            flying.append(most)
        except BudgetReached:
            assert paid + sum(flying) + most > limit - CENT
        if flying and which:
            reserved = flying.pop(which % len(flying))
            budget.settle(reserved, reserved * share)
            paid += reserved * share
        assert budget.spent == pytest.approx(paid)
        assert paid + sum(flying) <= limit + CENT
    # What was reserved and not spent is free again: nothing leaks.
    for reserved in flying:
        budget.settle(reserved, 0)
    if limit - paid > CENT:
        budget.reserve((limit - paid) * (1 - 1e-6))


def test_threads_together_stay_below_the_cap() -> None:
    budget = Budget(1.0, 0.25)
    refused: list[int] = []

    def work() -> None:
        for index in range(200):
            try:
                budget.reserve(0.01)
            except BudgetReached:
                refused.append(index)
            else:
                budget.settle(0.01, 0.008)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert 0.98 < budget.spent <= 1.0 + CENT
    assert refused


def test_free_models_need_no_budget() -> None:
    budget = Budget(0.0, 0.0)
    budget.reserve(0.0)
    budget.settle(0.0, 0.0)
    with pytest.raises(BudgetReached):
        budget.reserve(1e-6)
    # Nor does it stop them that an earlier run, with a higher cap, has spent more.
    Budget(1.0, 5.0).reserve(0.0)


def test_without_a_cap_money_is_counted_all_the_same() -> None:
    budget = Budget(None, 1.0)
    budget.reserve(100.0)
    budget.settle(100.0, 60.0)
    assert budget.spent == 61.0


def test_the_message_says_how_to_go_on() -> None:
    with pytest.raises(BudgetReached, match=r"budget of \$1\.00 reached: \$0\.9000 spent.*higher --budget") as caught:
        Budget(1.0, 0.9).reserve(0.2)
    assert caught.value.exit_code == 3


def test_calls_stop_before_the_cap_and_go_on_with_a_higher_one(
    loopback: Callable[..., LoopbackServer],  # noqa: F811
    prices: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """What the server bills is what the budget counts, at every concurrency, over a restart."""

    def answer(request: ChatRequest) -> Reply:
        return Reply("four characters a token " * 5)

    server = loopback(answer, latency=0.005, key=None)
    prices(
        f"as_of: today\nmodels: {{'openai/model-1@{server.openai_url}': {{input: 10, cached_input: 5, output: 30}}}}"
    )
    journal = Journal(tmp_path / "journal.db")

    def go_on(limit: float) -> tuple[Budget, int]:
        budget = Budget(limit, journal.spent())
        model = model_at(server.openai_url, journal, budget=budget, concurrency=4)
        try:
            ask_all(model, [f"question {index}" for index in range(40)], workers=4)
        except BudgetReached:
            return budget, 1
        return budget, 0

    def billed() -> float:
        usage = server.stats()["billed_usage"]
        return (usage["input_tokens"] * 10 + usage["output_tokens"] * 30) / 1e6

    first, stopped = go_on(0.04)
    # Calls in flight end, are kept and give back what they didn't cost: the cap is nearly used up, and no call is lost.
    assert stopped
    assert len(server.calls) == sum(journal.calls().values()) < 40
    assert first.spent == pytest.approx(journal.spent()) == pytest.approx(billed())
    assert 0.04 - MOST < first.spent <= 0.04
    second, stopped = go_on(1.0)
    assert not stopped
    assert journal.calls() == {"sample": 40}
    assert second.spent == pytest.approx(journal.spent())
    assert len(server.calls) == 40


@pytest.mark.parametrize(("budget", "told"), [(1, "$1.00"), (0.005, "$0.005"), (2.5, "$2.50")])
def test_a_budget_is_told_as_it_was_given(budget: float, told: str) -> None:
    assert in_dollars(budget) == told
