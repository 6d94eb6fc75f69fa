"""The cap against servers that count as they like: by their own books it isn't passed, but for the wave in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config.loading import load_config
from pipeline.config.settings import PolicySettings
from pipeline.errors import BudgetReached, ConfigError, ProviderStopped, RowReject
from pipeline.models import factory, retry
from pipeline.models.chat import ChatModel
from pipeline.models.cost import Budget
from pipeline.models.event_loop import run
from pipeline.models.journal import Answer, Journal
from tests.loopback import LoopbackServer
from tests.loopback.billing import ABOVE, DROPPED, WITHIN, Books
from tests.models.asking import KEYS, ask_all, request

INPUT, OUTPUT = 10.0, 30.0
LIMIT = 200
WAVE = 4
# Some 25 calls at their most.
CAP = 0.2
# Anthropic's API has no total, and counts the cached tokens apart.
_OPENAI_ALONE = ("total_beyond", "total_above", "error_above", "refused_above")
CASES = [
    # A call that is never answered takes its time-out.
    pytest.param(provider, kind, marks=pytest.mark.slow if kind == "hang" and provider == "openai" else ())
    for provider in KEYS
    for kind in (*WITHIN, *ABOVE, *DROPPED)
    if provider == "openai" or kind not in _OPENAI_ALONE
]


@pytest.fixture(scope="module")
def books() -> Books:
    return Books()


@pytest.fixture(scope="module")
def server(books: Books) -> Iterator[LoopbackServer]:
    with LoopbackServer(extensions=[books.extend]) as server:
        yield server


@pytest.fixture(autouse=True)
def quick(quick_and_keyed: None, books: Books) -> None:
    books.calls.clear()


def opened(
    server: LoopbackServer, folder: Path, provider: str, kind: str, cap: float, timeout_s: float = 10.0
) -> tuple[ChatModel, Journal]:
    """As a new process opens them."""
    timeout_s = 0.3 if kind == "hang" else timeout_s
    journal = Journal(folder / "journal.db")
    url = f"{server.url}/{kind}" + ("/v1" if provider == "openai" else "")
    settings = PolicySettings(
        model=f"{provider}/model-1@{url}", price=(INPUT, OUTPUT), concurrency=WAVE, attempts=2, timeout_s=timeout_s
    )
    budget = Budget(cap, journal.spent())
    return factory.chat_model(settings, journal=journal, budget=budget, local_file=Path), journal


def spend(model: ChatModel, name: str, rows: int = 120) -> bool:
    """Ask until the budget stops it; whether it did."""
    texts = [f"{name} {index} " + "word " * (index % 40) for index in range(rows)]
    while texts:
        try:
            ask_all(model, texts, workers=WAVE, max_tokens=LIMIT)
            return False
        except BudgetReached:
            return True
        except ProviderStopped:
            # It only fails: the user tries again with the other rows.
            texts = texts[retry.BREAKER :]
    return False


@pytest.mark.parametrize(("provider", "kind"), CASES)
def test_the_books_stay_within_the_cap(
    server: LoopbackServer, books: Books, tmp_path: Path, provider: str, kind: str
) -> None:
    model, journal = opened(server, tmp_path, provider, kind, CAP)
    stopped = spend(model, "a")
    billed = books.dollars(kind, INPUT, OUTPUT)
    assert len(billed) >= 2
    wave = WAVE * max(billed) if kind in ABOVE else 0.0
    assert sum(billed) <= CAP + wave
    assert journal.spent() >= sum(billed) - 1e-9
    # Anthropic's cached tokens are no part of the prompt's count: what they are in truth isn't known.
    assert stopped == (
        kind not in ("honest", "cached_odd", "cached_beyond") or (provider, kind) == ("anthropic", "cached_odd")
    )
    # What was learned of the server is still known after a restart: nothing more is passed.
    model, journal = opened(server, tmp_path, provider, kind, 2 * CAP + wave)
    spend(model, "b", rows=200)
    billed = books.dollars(kind, INPUT, OUTPUT)
    # One that bills more each time can do so in one wave of each run.
    assert sum(billed) <= 2 * CAP + wave + (WAVE * max(billed) if kind == "growing" else 0.0)
    assert journal.spent() >= sum(billed) - 1e-9
    assert bool(journal.overruns()) == (kind in ABOVE)


def test_at_the_first_overrun_no_further_wave_starts(server: LoopbackServer, books: Books, tmp_path: Path) -> None:
    """Just below the cap: the calls in flight with it are the last."""
    model, _ = opened(server, tmp_path, "openai", "tenfold", 0.0065 * WAVE * 1.5)
    assert spend(model, "a")
    assert 1 <= len(books.calls["tenfold"]) <= WAVE


def test_the_message_names_the_server_that_bills_more(server: LoopbackServer, tmp_path: Path) -> None:
    model, _ = opened(server, tmp_path, "openai", "twice", 0.05)
    with pytest.raises(BudgetReached, match=r"openai/model-1@\S+/twice/v1 has billed 2 times what a call allows"):
        ask_all(model, [f"question {index}" for index in range(50)], workers=1, max_tokens=LIMIT)


def test_a_call_that_is_cancelled_counts_at_its_most(server: LoopbackServer, books: Books, tmp_path: Path) -> None:
    model, journal = opened(server, tmp_path, "openai", "slow", CAP)

    async def give_up() -> None:
        call = asyncio.ensure_future(model.ask("sample", request("Hello there", LIMIT)))
        while not books.calls.get("slow"):
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    run(give_up())
    (billed,) = books.dollars("slow", INPUT, OUTPUT)
    assert model.budget.spent == pytest.approx(journal.spent()) and journal.spent() >= billed
    assert journal.uncertain() == journal.spent()


def test_what_is_reserved_counts_as_many_times_for_its_model_alone() -> None:
    budget = Budget(10.0, 0.0)
    budget.reserve(2.0, model="m")
    budget.expect_more("m", 3.0)
    budget.expect_more("m", 2.0)
    assert (budget.overrun("m"), budget.overrun("n")) == (3.0, 1.0)
    budget.reserve(1.0, model="m")
    with pytest.raises(BudgetReached, match=r"the next call could cost \$1\.5000 \(m has billed 3 times"):
        budget.reserve(0.5, model="m")
    budget.reserve(1.0, model="n")
    budget.settle(2.0, 6.0, "m")
    budget.settle(1.0, 0.0, "m")
    budget.settle(1.0, 1.0, "n")
    assert budget.spent == 7.0 and not budget.in_flight
    budget.reserve(1.0, model="m")


def test_the_journals_calls_in_flight_are_raised_with_it(tmp_path: Path) -> None:
    """Killed now, they were billed as the others."""
    journal = Journal(tmp_path / "journal.db")
    run(journal.begin("sample", "m", 1.0))
    run(journal.begin("sample", "n", 1.0))
    for times, spent in ((3.0, 4.0), (2.0, 4.0), (6.0, 7.0)):
        run(journal.note_overrun("m", times))
        assert journal.spent() == pytest.approx(spent)
    assert journal.overruns() == {"m": 6.0}


def test_an_honest_server_is_paid_to_the_token(server: LoopbackServer, books: Books, tmp_path: Path) -> None:
    model, journal = opened(server, tmp_path, "openai", "honest", CAP)
    answers = ask_all(model, [f"question {index}" for index in range(30)], workers=WAVE, max_tokens=LIMIT)
    assert all(isinstance(answer, Answer) for answer in answers)
    assert journal.spent() == pytest.approx(sum(books.dollars("honest", INPUT, OUTPUT)))


def test_an_answer_with_worthless_counts_is_still_an_answer(server: LoopbackServer, tmp_path: Path) -> None:
    for kind in ("booleans", "nan", "texts", "null", "cached_beyond", "thoughts_above"):
        model, _ = opened(server, tmp_path / kind, "openai", kind, CAP)
        (answer,) = ask_all(model, ["Hello"], max_tokens=LIMIT)
        assert isinstance(answer, Answer) and answer.text, (kind, answer)
    model, _ = opened(server, tmp_path, "openai", "refused_above", CAP)
    (answer,) = ask_all(model, ["Hello"], max_tokens=LIMIT)
    assert isinstance(answer, RowReject)


@pytest.mark.parametrize("role", ["policy", "reviser", "reward"])
@pytest.mark.parametrize(
    ("extra", "named", "instead"),
    [
        ("{max_tokens: 9999}", "max_tokens", "{}.max_tokens"),
        ("{max_completion_tokens: 9999}", "max_completion_tokens", "{}.max_tokens"),
        ("{Max_Output_Tokens: 9999}", "Max_Output_Tokens", "{}.max_tokens"),
        ("{maxTokens: 9999}", "maxTokens", "{}.max_tokens"),
        ("{options: {num_predict: -1}}", "options.num_predict", "{}.max_tokens"),
        ("{extra_body: {max_tokens: 9999}}", "extra_body.max_tokens", "{}.max_tokens"),
        ("{n: 8}", "n", "policy.samples"),
        ("{best_of: 8}", "best_of", "reviser.candidates"),
        ("{model: gpt-5-pro}", "model", "{}.model"),
        ("{models: [a, b]}", "models", "{}.model"),
        ("{messages: []}", "messages", "policy.system"),
        ("{system: You are long}", "system", "policy.system"),
        ("{stream: true}", "stream", "leave it out"),
        ("{stream_options: {}}", "stream_options", "leave it out"),
        ("{tools: [{type: web_search}]}", "tools", "leave it out"),
        ("{web_search_options: {}}", "web_search_options", "leave it out"),
        ("{plugins: [{id: web}]}", "plugins", "leave it out"),
        ("{prediction: {}}", "prediction", "policy.system"),
    ],
)
def test_extra_cannot_change_what_a_call_may_cost(role: str, extra: str, named: str, instead: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(assignments=[f"{role}.extra={extra}"])
    said = str(caught.value)
    assert said.startswith(f"setting {role}.extra: {named} would change what a call may cost; ")
    assert instead.format(role) in said and "\n" not in said and "9999" not in said
    assert caught.value.exit_code == 2


def test_extra_still_takes_what_a_server_understands() -> None:
    extra = "{top_k: 5, min_p: 0.1, chat_template_kwargs: {enable_thinking: false}, options: {num_ctx: 8192}}"
    assert load_config(assignments=[f"policy.extra={extra}"]).policy.extra["options"] == {"num_ctx": 8192}
