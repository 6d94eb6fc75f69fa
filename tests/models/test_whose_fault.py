"""Whose fault a refusal is: the account's, the row's or the moment's, by the words of today's providers, through both SDKs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from aiohttp import web

from pipeline.config.settings import CurationConfig
from pipeline.curate import Outcome, curate, in_threads
from pipeline.errors import ProviderStopped, RowReject
from pipeline.models.journal import Answer, Journal
from pipeline.run import shards
from tests.conftest import Silent
from tests.loopback import FaultPlan, LoopbackServer, faults
from tests.loopback.refusals import BAD, BLOCKED, DAILY, LOADING, MODERATED, MONEY, STOPPING
from tests.models.asking import PROVIDERS, address, ask_all, caught, model_at

Settings = Callable[..., CurationConfig]


pytestmark = pytest.mark.usefixtures("quick_and_keyed")


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer() as server:
        yield server


def ended(server: LoopbackServer, tmp_path: Path, provider: str, fault: str) -> Answer | Exception:
    server.reset()
    server.engine.faults = FaultPlan.always(fault)
    return caught(model_at(address(server, provider), Journal(tmp_path / "journal.db"), provider))


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("fault", [*MONEY, *STOPPING, *DAILY])
def test_what_holds_for_every_call_stops_the_run(
    server: LoopbackServer, tmp_path: Path, provider: str, fault: str
) -> None:
    if fault == "choice_credits_in_200" and provider == "anthropic":
        pytest.skip("Anthropic's API has no choices")
    error = ended(server, tmp_path, provider, fault)
    assert isinstance(error, ProviderStopped), repr(error)
    assert len(server.calls) == 1
    assert ("out of money" in str(error)) == (fault in MONEY)
    assert ("a limit is reached for" in str(error)) == (fault in DAILY)
    assert "run the same command again" in str(error)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("day_retry_after", "for 7.0 hours, until 2"),
        ("hours_retry_after", "for 7.0 hours, until 2"),
        ("reset_header", "for 7.0 hours, until 2"),
        ("gemini_day", "for the day"),
    ],
)
def test_a_limit_of_hours_says_how_long_it_lasts(server: LoopbackServer, tmp_path: Path, fault: str, says: str) -> None:
    assert says in str(ended(server, tmp_path, "openai", fault))


def test_a_limit_that_is_announced_as_used_up_for_long_stops_the_run(tmp_path: Path) -> None:
    """Answered, with headers that say that this was the last call for hours."""

    async def note(http: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(
            {
                "x-ratelimit-limit-requests": "20",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "7h",
            }
        )

    with LoopbackServer(extensions=[lambda app, engine: app.on_response_prepare.append(note)]) as server:
        model = model_at(server.openai_url, Journal(tmp_path / "journal.db"))
        assert isinstance(caught(model), Answer)
        error = caught(model, "Another")
        assert isinstance(error, ProviderStopped) and "used up for 0.3 hours" in str(error), repr(error)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("fault", [*MODERATED, *BLOCKED])
def test_a_row_that_a_filter_stops_is_that_rows_reject(
    server: LoopbackServer, tmp_path: Path, provider: str, fault: str
) -> None:
    reject = ended(server, tmp_path, provider, fault)
    assert isinstance(reject, RowReject), repr(reject)
    assert (reject.reason, reject.retryable) == ("blocked" if fault in BLOCKED else "content_filter", False)
    assert len(server.calls) == 1


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("fault", BAD)
def test_a_row_that_the_server_finds_bad_has_the_servers_words(
    server: LoopbackServer, tmp_path: Path, provider: str, fault: str
) -> None:
    reject = ended(server, tmp_path, provider, fault)
    assert isinstance(reject, RowReject), repr(reject)
    assert (reject.reason, reject.retryable) == ("bad_request", False)
    assert BAD[fault][1] in reject.evidence["error"]
    assert "{" not in reject.evidence["error"]
    assert len(server.calls) == 1


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("fault", LOADING)
def test_a_model_that_is_loading_is_waited_for(
    server: LoopbackServer, tmp_path: Path, provider: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.models import provider_errors

    monkeypatch.setattr(provider_errors, "_LOOK_AGAIN_S", 0.05)
    server.reset()
    server.engine.faults = FaultPlan.listed([fault] * 9)
    model = model_at(address(server, provider), Journal(tmp_path / "journal.db"), provider, attempts=2)
    assert isinstance(caught(model), Answer)
    assert len(server.calls) == 10
    # Not for ever: as long as a call may last.
    server.engine.faults = FaultPlan.always(fault)
    model = model_at(address(server, provider), Journal(tmp_path / "other.db"), provider, attempts=2, timeout_s=0.5)
    began = time.monotonic()
    reject = caught(model)
    assert isinstance(reject, RowReject) and reject.retryable, repr(reject)
    assert 0.5 <= time.monotonic() - began < 5


def test_a_short_limit_of_the_day_is_waited_for(server: LoopbackServer, tmp_path: Path) -> None:
    """OpenAI's limits of a day refill all the time."""
    server.reset()
    server.engine.faults = FaultPlan.listed([faults.RATE_SECONDS], retry_after=0.1)
    assert isinstance(caught(model_at(server.openai_url, Journal(tmp_path / "journal.db"))), Answer)


def test_a_firewall_that_stops_everything_stops_the_run(server: LoopbackServer, tmp_path: Path) -> None:
    server.reset()
    server.engine.faults = FaultPlan(lambda number, request, attempt: "cloudflare_403" if number > 1 else None)
    with pytest.raises(ProviderStopped, match=r"12 rows in a row failed.*Attention Required"):
        ask_all(model_at(server.openai_url, Journal(tmp_path / "journal.db")), [str(n) for n in range(30)])


# -- whole runs -------------------------------------------------------------------------------------------------------


def run(config: CurationConfig) -> Outcome:
    shards.forget_contexts()
    return curate(config, in_threads, Silent())


def rejects(outcome: Outcome) -> list[dict[str, Any]]:
    files = sorted((outcome.out / "rejected").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def test_an_account_that_runs_dry_loses_no_row(settings: Settings) -> None:
    server = settings.server  # type: ignore[attr-defined]
    server.engine.faults = FaultPlan(lambda number, request, attempt: "anthropic_credit" if number > 10 else None)
    with pytest.raises(ProviderStopped, match=r"out of money.*credit balance is too low"):
        run(settings())
    assert not (settings().out / "manifest.json").exists()
    answered = {call.key for call in server.calls if call.completed}
    before = len(server.calls)
    server.engine.faults = FaultPlan.none()
    outcome = run(settings())
    assert outcome.manifest["unanswered"] == 0
    assert not answered & {call.key for call in server.calls[before:]}
    assert not {"bad_request", "server_error"} & {row["reason"] for row in rejects(outcome)}


@pytest.mark.parametrize("fault", ["openrouter_flagged", "cloudflare_403", "azure_filter", "openai_context"])
def test_some_rows_that_are_refused_end_no_run(settings: Settings, fault: str) -> None:
    server = settings.server  # type: ignore[attr-defined]
    server.engine.faults = FaultPlan(lambda number, request, attempt: fault if number in (3, 5, 9) else None)
    outcome = run(settings())
    wanted = {"cloudflare_403": "blocked", "openai_context": "bad_request"}.get(fault, "content_filter")
    refused = [row for row in rejects(outcome) if row["reason"] == wanted]
    assert len(refused) == 3 and outcome.manifest["unanswered"] == 0
    assert outcome.manifest["rows"]["published"]


@pytest.mark.parametrize("rows", [3, 40])
@pytest.mark.parametrize(
    ("fault", "cause"), [("unknown_parameter", "argument supplied: top_k"), ("cloudflare_403", "Attention Required")]
)
def test_a_stage_of_which_every_call_fails_alike_is_not_published(
    settings: Settings, rows: int, fault: str, cause: str
) -> None:
    server = settings.server  # type: ignore[attr-defined]
    config = settings(source__limit=rows, policy__concurrency=4)
    server.engine.faults = FaultPlan.always(fault)
    for _ in range(2):
        before = len(server.calls)
        with pytest.raises(ProviderStopped, match=rf"failed.*{cause}.*run the same command again"):
            run(config)
        # Two more for the probes, once.
        assert 0 < len(server.calls) - before <= min(rows, 20) + 2
        assert not (config.out / "manifest.json").exists()
    server.engine.faults = FaultPlan.none()
    outcome = run(config)
    assert outcome.manifest["rows"]["read"] == rows
    assert not {"bad_request", "blocked"} & {row["reason"] for row in rejects(outcome)}


def test_a_later_stage_of_which_every_call_fails_alike_is_not_published(settings: Settings) -> None:
    server = settings.server  # type: ignore[attr-defined]
    server.engine.faults = FaultPlan(
        lambda number, request, attempt: "unknown_parameter" if request.model == "reviser" else None
    )
    config = settings(source__limit=6, selection__eta1="off", selection__eta2="off", selection__eta3="off")
    with pytest.raises(ProviderStopped, match="all rows of revise failed alike, at reviser: bad_request"):
        run(config)
    server.engine.faults = FaultPlan.none()
    before = len(server.calls)
    assert run(config).manifest["rows"]["read"] == 6
    assert "policy" not in {call.model for call in server.calls[before:]}


def test_rows_that_are_moderated_alike_are_published_as_rejects(settings: Settings) -> None:
    """A data set about what filters stop is no fault of the provider's."""
    settings.server.engine.faults = FaultPlan.always("azure_filter")  # type: ignore[attr-defined]
    outcome = run(settings(source__limit=12))
    assert outcome.manifest["rows"] == {"read": 12, "published": 0, "rejected": 12}
