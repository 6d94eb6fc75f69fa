"""Batches that find no room, whose files come late or twice, or that are gone, at both providers; nothing is paid for twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tenacity import wait_none

from pipeline.cli.main import main
from pipeline.errors import ProviderStopped
from pipeline.models.batch import openai as openai_batches
from pipeline.models.batch.ledger import FILE, BatchLedger, unfinished
from pipeline.models.chat import ChatModel
from pipeline.models.cost import Price
from pipeline.models.journal import Journal
from tests.loopback import LoopbackServer
from tests.loopback.batches import CANCELLED, EXPIRED, BatchDesk
from tests.loopback.engine import WIRES
from tests.loopback.fixtures import loopback  # noqa: F401 - a fixture
from tests.models.asking import KEYS, PROVIDERS, address
from tests.models.batching import ask_together, model_in_batches, said, texts

Start = Callable[..., LoopbackServer]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, quick_and_keyed: None) -> None:
    monkeypatch.setattr(openai_batches.OpenAIBatches._create.retry, "wait", wait_none())  # type: ignore[attr-defined]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "work" / "journal.db")


def model(server: LoopbackServer, journal: Journal, provider: str) -> ChatModel:
    made = model_in_batches(address(server, provider), journal, provider, attempts=3)
    # A dollar a token.
    made.price = Price(1e6, 1e6, 1e6)
    return made


def lose_the_first(desk: BatchDesk, what: str) -> None:
    """The first batch, or its results, are gone; the second stays."""
    desk.gone.add(what)
    original = desk.take

    def take(*arguments: object, **fields: object) -> object:
        if desk.jobs:
            desk.gone.clear()
        return original(*arguments, **fields)  # type: ignore[arg-type]

    desk.take = take  # type: ignore[method-assign,assignment]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_halves_that_find_no_room_wait_for_it_and_not_for_each_other(
    loopback: Start,  # noqa: F811
    journal: Journal,
    provider: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = BatchDesk(room=3, looks=4)
    server = loopback(extensions=desk.extensions)
    asking = model(server, journal, provider)
    if provider == "anthropic":
        from pipeline.models.batch.anthropic import AnthropicBatches

        monkeypatch.setattr(AnthropicBatches, "most_requests", 2)
    assert said(ask_together(asking, texts(12))) == texts(12)
    assert desk.refused > 2 and server.completed == 12
    # Not a storm of small batches: one after the other.
    assert len(desk.jobs) <= 48


@pytest.mark.parametrize("provider", PROVIDERS)
def test_of_two_results_for_one_request_the_good_one_counts(
    loopback: Start,  # noqa: F811
    journal: Journal,
    provider: str,
) -> None:
    desk = BatchDesk(doubles=True, outcome=lambda request, attempt: "400" if request.last_user.endswith("3") else None)
    server = loopback(extensions=desk.extensions)
    results = said(ask_together(model(server, journal, provider), texts(6)))
    assert results == [*texts(3), "bad_request", "Question 4", "Question 5"]
    assert set(desk.sent.values()) == {1}


def test_a_file_that_is_not_there_yet_is_waited_for(loopback: Start, journal: Journal) -> None:  # noqa: F811
    desk = BatchDesk(late_files=2)
    server = loopback(extensions=desk.extensions)
    assert said(ask_together(model(server, journal, "openai"), texts(3))) == texts(3)
    assert desk.sizes == [3] and len([one for one in desk.files.values() if one["file"]["purpose"] == "batch"]) == 1


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("what", ["batch", "results"])
def test_what_is_gone_is_sent_again_and_counted_as_paid(
    loopback: Start,  # noqa: F811
    journal: Journal,
    provider: str,
    what: str,
) -> None:
    desk = BatchDesk()
    server = loopback(extensions=desk.extensions)
    lose_the_first(desk, what)
    assert said(ask_together(model(server, journal, provider), texts(4))) == texts(4)
    assert set(desk.sent.values()) == {2} and len(desk.jobs) == 2
    billed = sum(call.usage.total for call in server.calls if call.usage)
    assert journal.spent() >= billed - 1e-6
    assert journal.uncertain() > 0
    # Not counted a second time by the ledger.
    with_ledger = BatchLedger(journal.path.with_name(FILE))
    assert with_ledger.holds(journal.path) == {}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("outcome", [EXPIRED, CANCELLED])
def test_what_never_ran_is_sent_again_for_nothing(
    loopback: Start,  # noqa: F811
    journal: Journal,
    provider: str,
    outcome: str,
) -> None:
    desk = BatchDesk(outcome=lambda request, attempt: outcome if attempt == 1 else None)
    server = loopback(extensions=desk.extensions)
    lose_the_first(desk, "results")
    assert said(ask_together(model(server, journal, provider), texts(4))) == texts(4)
    assert journal.uncertain() == 0
    assert journal.spent() == pytest.approx(sum(call.usage.total for call in server.calls if call.usage))


LeftBehind = tuple[str, BatchDesk, str, BatchLedger]


@pytest.fixture(params=PROVIDERS)
def left_behind(request: pytest.FixtureRequest, loopback: Start, journal: Journal) -> LeftBehind:  # noqa: F811
    """A provider and its desk, the model, and a run's ledger with a batch that the desk doesn't know."""
    provider, desk = request.param, BatchDesk()
    server = loopback(extensions=desk.extensions)
    work, model_name = journal.path.parent, f"{provider}/model-1@{address(server, provider)}"
    ledger = BatchLedger(work / FILE)
    ledger.intend("k" * 32, model_name, ["one", "two"], [0.5, 0.25])
    (work / "run.json").write_text(json.dumps({"keys": {model_name: KEYS[provider]}}), "utf-8")
    return provider, desk, model_name, ledger


def test_cancel_gives_up_a_batch_that_is_gone(
    left_behind: LeftBehind, journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    provider, _, _, ledger = left_behind
    work = journal.path.parent
    ledger.name("k" * 32, "batch_gone" if provider == "openai" else "msgbatch_gone")
    assert main(["cancel", str(work.parent), "--yes"]) == 0
    assert "gone" in capsys.readouterr().out
    assert not unfinished(work)
    # It may have been billed: its worst case stays set aside.
    assert sum(ledger.holds(journal.path).values()) == 0.75
    assert ledger.find("one") is None


def test_cancel_looks_for_a_batch_that_was_perhaps_never_sent(
    left_behind: LeftBehind, journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    provider, desk, model_name, ledger = left_behind
    work = journal.path.parent
    assert main(["cancel", str(work.parent), "--yes"]) == 0
    assert "never reached the provider" in capsys.readouterr().out
    assert not unfinished(work) and ledger.holds(journal.path) == {}
    # One that did: by its name with OpenAI; with Anthropic it may be another program's, and is left alone.
    ledger.intend("m" * 32, model_name, ["two"], [0.5])
    body = {"model": "model-1", "max_tokens": 5, "messages": [{"role": "user", "content": "Two"}]}
    facts = {"input_file_id": "f", "metadata": {"figa_batch": "m" * 32}} if provider == "openai" else {}
    desk.take(WIRES[provider], [("two", body, "")], **facts)
    assert main(["cancel", str(work.parent), "--yes"]) == (0 if provider == "openai" else 1)
    said = capsys.readouterr()
    assert ("cancelling" in said.out) == (provider == "openai") != ("another program's" in said.err)
    assert bool(desk.cancelled) == (provider == "openai")


def test_a_parameter_that_a_batch_refuses_is_changed_in_the_next(loopback: Start, journal: Journal) -> None:  # noqa: F811
    message = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    )
    desk = BatchDesk(outcome=lambda request, _: "400" if "max_tokens" in request.raw else None, message=message)
    server = loopback(extensions=desk.extensions)
    asking = model(server, journal, "openai")
    assert said(ask_together(asking, texts(3))) == texts(3)
    assert asking.adaptation.changes == {"max_tokens": {"name": "max_completion_tokens"}}
    assert desk.sizes == [3, 3]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_empty_account_in_a_batch_loses_no_row(loopback: Start, journal: Journal, provider: str) -> None:  # noqa: F811
    empty = True
    desk = BatchDesk(
        outcome=lambda request, attempt: "400" if empty and request.last_user.endswith("1") else None,
        message="Your credit balance is too low to access the API.",
    )
    server = loopback(extensions=desk.extensions)
    with pytest.raises(ProviderStopped, match="out of money"):
        ask_together(model(server, journal, provider), texts(4))
    empty = False
    assert said(ask_together(model(server, journal, provider), texts(4))) == texts(4)
    assert sorted(desk.sent.values()) == [1, 1, 1, 2]


def test_anothers_batches_are_no_fault(loopback: Start, journal: Journal) -> None:  # noqa: F811
    """Room that another program takes is waited for as well."""
    desk = BatchDesk(room=5)
    server = loopback(extensions=desk.extensions)
    body = {"model": "model-1", "max_tokens": 5, "messages": [{"role": "user", "content": "Theirs"}]}
    theirs = desk.take(WIRES["openai"], [(f"t-{n}", body, "") for n in range(5)], input_file_id="f", metadata={})
    original = desk.is_full

    def is_full(size: int) -> bool:
        if desk.refused > 3:
            theirs.ended = True
        return original(size)

    desk.is_full = is_full  # type: ignore[method-assign]
    assert said(ask_together(model(server, journal, "openai"), texts(2))) == texts(2)
