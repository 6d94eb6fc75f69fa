"""The cap and batches: what was submitted counts from the moment a process opens the folder, by the server's own count."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tenacity import wait_none

from pipeline.config.settings import PolicySettings
from pipeline.errors import BudgetReached, RowReject
from pipeline.models import factory, retry
from pipeline.models import request as requests
from pipeline.models.batch import ledger as batch_ledger
from pipeline.models.batch.ledger import BatchLedger
from pipeline.models.chat import ChatModel
from pipeline.models.cost import Budget
from pipeline.models.event_loop import run
from pipeline.models.journal import Answer, Journal
from pipeline.models.request import ChatRequest
from pipeline.run.context import Context
from tests.loopback import LoopbackServer, Reply
from tests.loopback.batches import EXPIRED, BatchDesk
from tests.loopback.chat import Usage
from tests.loopback.engine import WIRES
from tests.loopback.fixtures import loopback  # noqa: F401 - a fixture
from tests.models.asking import KEYS, ask_all
from tests.models.batching import start_child, texts

Start = Callable[..., LoopbackServer]
COUNT = 6
INPUT, OUTPUT = 100.0, 400.0


@pytest.fixture
def desk() -> BatchDesk:
    return BatchDesk()


@pytest.fixture
def server(
    loopback: Start,  # noqa: F811
    desk: BatchDesk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> LoopbackServer:
    """A server whose model has a price; batches cost half of it."""
    server = loopback(extensions=desk.extensions)
    monkeypatch.setattr(retry, "_backoff", wait_none())
    monkeypatch.setenv(KEYS["openai"], "sk-loopback")
    prices = tmp_path / "prices.yaml"
    entry = f"openai/model-1@{server.openai_url}: {{input: {INPUT}, cached_input: {INPUT}, output: {OUTPUT}}}"
    prices.write_text(f"as_of: today\nbatch: {{openai: 0.5}}\nmodels:\n  {entry}\n")
    monkeypatch.setenv("FIGA_PRICES", str(prices))
    return server


def opened(
    server: LoopbackServer, folder: Path, limit: float, mode: str = "batch"
) -> tuple[ChatModel, Budget, Journal]:
    """A model as a new process has it, the budget as `Context` makes it."""
    journal = Journal(folder / "journal.db")
    quick: dict[str, Any] = {"mode": mode, "batch_poll_s": 0.05, "batch_quiet_s": 0.2, "attempts": 3, "timeout_s": 10}
    settings = PolicySettings(model=f"openai/model-1@{server.openai_url}", api_key_env="OPENAI_API_KEY", **quick)
    budget = Budget(limit, journal.spent(), batch_ledger.holds(journal.path))
    return factory.chat_model(settings, journal=journal, budget=budget, local_file=Path), budget, journal


def asked(model: ChatModel, rows: list[str]) -> list[str]:
    results: list[Answer | RowReject] = ask_all(model, rows, workers=len(rows))
    return [one.text if isinstance(one, Answer) else one.reason for one in results]


def billed(server: LoopbackServer, share: float = 0.5) -> float:
    usages = [call.usage for call in server.calls if call.usage]
    return share * sum(usage.input_tokens * INPUT + usage.output_tokens * OUTPUT for usage in usages) / 1e6


def worst(text: str, share: float = 0.5) -> float:
    prompt = requests.upper_bound_tokens(ChatRequest([{"role": "user", "content": text}], 200))
    return share * (prompt * INPUT + 200 * OUTPUT) / 1e6


def submitted_and_killed(server: LoopbackServer, desk: BatchDesk, folder: Path) -> float:
    """Kill a run whose batch is out; what its requests can cost at most."""
    desk.open.clear()
    child = start_child("openai", server.openai_url, folder, COUNT)
    deadline = time.monotonic() + 60
    while not (desk.jobs and desk.jobs[0].looks > 1) and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.01)
    child.kill()
    said, _ = child.communicate(timeout=20)
    assert child.returncode == -9, said
    return sum(worst(text) for text in texts(COUNT))


def test_what_is_out_counts_before_any_row_asks(server: LoopbackServer, desk: BatchDesk, tmp_path: Path) -> None:
    out = submitted_and_killed(server, desk, tmp_path)
    assert sum(batch_ledger.holds(tmp_path / "journal.db").values()) == pytest.approx(out)
    # Live calls are made beside it, and the batch is billed all the same.
    model, budget, journal = opened(server, tmp_path, out + 1.5 * worst("Other 0", share=1.0), mode="live")
    with pytest.raises(BudgetReached, match="set aside for batches that are still out"):
        asked(model, [f"Other {index} {'x' * index * 300}" for index in range(40)])
    live = billed(server, share=1.0)
    assert 0 < live == pytest.approx(journal.spent())
    desk.open.set()
    desk.look(server.engine, WIRES["openai"], desk.jobs[0])
    assert budget.limit and live + (billed(server, share=1.0) - live) / 2 <= budget.limit


def test_others_cannot_spend_it_and_all_is_done_when_the_cap_suffices(
    server: LoopbackServer, desk: BatchDesk, tmp_path: Path
) -> None:
    out = submitted_and_killed(server, desk, tmp_path)
    desk.open.set()
    # New rows ask first: they wait until it is known what the batch cost, and get what it leaves.
    limit = out + worst("New 0") / 2
    model, budget, journal = opened(server, tmp_path, limit)
    new = [f"New {index}" for index in range(2)]
    assert asked(model, new + texts(COUNT)) == new + texts(COUNT)
    assert billed(server) == pytest.approx(journal.spent()) == pytest.approx(budget.spent)
    assert billed(server) <= limit and set(desk.sent.values()) == {1}
    assert batch_ledger.holds(journal.path) == {}


def test_a_lowered_cap_still_collects_what_was_sent(server: LoopbackServer, desk: BatchDesk, tmp_path: Path) -> None:
    submitted_and_killed(server, desk, tmp_path)
    desk.open.set()
    model, _, journal = opened(server, tmp_path, 1e-6)
    assert asked(model, texts(COUNT)) == texts(COUNT)
    with pytest.raises(BudgetReached):
        asked(model, ["New"])
    assert journal.spent() == pytest.approx(billed(server)) and sum(desk.sizes) == COUNT


def test_what_expired_is_released(server: LoopbackServer, desk: BatchDesk, tmp_path: Path) -> None:
    desk.outcome = lambda request, attempt: EXPIRED if attempt == 1 else None
    out = submitted_and_killed(server, desk, tmp_path)
    desk.open.set()
    model, _, journal = opened(server, tmp_path, out * 1.01)
    # The same money, once more: it would not do for both.
    assert asked(model, texts(COUNT)) == texts(COUNT)
    assert sorted(desk.sent.values()) == [2] * COUNT
    assert journal.spent() == pytest.approx(billed(server)) and batch_ledger.holds(journal.path) == {}


def test_results_that_no_row_asks_for_count_as_what_they_cost(
    server: LoopbackServer, desk: BatchDesk, tmp_path: Path
) -> None:
    submitted_and_killed(server, desk, tmp_path)
    desk.open.set()
    model, _, journal = opened(server, tmp_path, 10.0)
    assert asked(model, ["New"]) == ["New"]
    deadline = time.monotonic() + 20
    while batch_ledger.unfinished(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.02)
    held = sum(batch_ledger.holds(journal.path).values())
    assert held + journal.spent() == pytest.approx(billed(server)) and held > journal.spent() > 0
    # A row that asks for one later takes its place.
    model, budget, journal = opened(server, tmp_path, 10.0)
    assert asked(model, texts(COUNT)) == texts(COUNT)
    assert budget.spent == pytest.approx(journal.spent()) == pytest.approx(billed(server))
    assert batch_ledger.holds(journal.path) == {}


def test_the_ledger_holds_until_the_journal_has_the_cost(tmp_path: Path) -> None:
    """Whatever the moment of a kill: the two are never both counted, nor neither."""
    journal = Journal(tmp_path / "journal.db")
    ledger = BatchLedger(tmp_path / batch_ledger.FILE)
    ledger.intend("k", "openai/m", ["a", "b", "c"], [1.0, 2.0, 4.0])
    ledger.keep("k", [("a", "{}"), ("b", "{}")])
    assert sum(batch_ledger.holds(journal.path).values()) == 7.0
    assert ledger.finish("k") == ["c"]
    ledger.forget("b")
    assert batch_ledger.holds(journal.path) == {"a": 1.0}
    run(journal.keep("key", "sample", "m", Answer("x", "stop", 10), 0.5, custom_id="a"))
    assert batch_ledger.holds(journal.path) == {} and journal.spent() == 0.5


def test_a_run_opens_its_budget_with_what_is_out(settings: Callable[..., Any]) -> None:
    config = settings(run__budget_usd=1.0)
    ledger = BatchLedger(config.out / "work" / batch_ledger.FILE)
    ledger.intend("k", "openai/m", ["a"], [0.75])
    budget = Context(config).budget
    with pytest.raises(BudgetReached, match=r"\$0\.7500 set aside"):
        budget.reserve(0.5)
    assert budget.reserve(0.8, "a") == 0.75
    budget.settle(0.75, 0.1)
    assert budget.reserve(0.5) == 0.5


def test_a_batch_that_is_billed_above_its_limits_is_the_last(server: LoopbackServer, tmp_path: Path) -> None:
    server.engine.behaviour = lambda request: Reply(request.last_user, usage=Usage(20, 3 * 200))
    limit = 1.05 * sum(worst(text) for text in texts(COUNT))
    model, budget, journal = opened(server, tmp_path, limit)
    assert asked(model, texts(COUNT)) == texts(COUNT)
    assert limit < billed(server) <= 3 * limit and budget.spent == pytest.approx(billed(server))
    assert journal.overruns() == {model.name: 3.0}
    model, _, _ = opened(server, tmp_path, billed(server) + 2 * worst("New"))
    with pytest.raises(BudgetReached, match="billed 3 times what a call allows"):
        asked(model, ["New"])
    assert len(server.calls) == COUNT
