"""Whole runs whose calls fail or cost: the cap, what the next run asks again, and what it says."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tenacity import wait_none

from pipeline.cli.main import main
from pipeline.config.settings import CurationConfig
from pipeline.curate import Outcome, curate, in_threads
from pipeline.errors import ProviderStopped
from pipeline.models import retry
from pipeline.models.journal import Journal
from pipeline.run import shards
from tests.conftest import Silent, as_arguments
from tests.loopback import ChatRequest, FaultPlan, Reply, faults
from tests.loopback.chat import BadRequest, number_from

Settings = Callable[..., CurationConfig]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_backoff", wait_none())


def run(config: CurationConfig) -> tuple[Outcome, list[str]]:
    shards.forget_contexts()
    reporter = Silent()
    return curate(config, in_threads, reporter), reporter.warnings


def calls(settings: Settings) -> list[Any]:
    return settings.server.calls  # type: ignore[attr-defined,no-any-return]


def set_prices(path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, dollars: float) -> None:
    url = settings.server.openai_url  # type: ignore[attr-defined]
    models = {
        f"openai/{model}@{url}": {"input": dollars, "cached_input": dollars, "output": dollars}
        for model in ("policy", "reviser")
    }
    path.write_text(json.dumps({"as_of": "today", "models": models}), "utf-8")
    monkeypatch.setenv("FIGA_PRICES", str(path))


def billed(settings: Settings, dollars: float) -> float:
    """US dollars on the server's own count."""
    return sum(call.usage.total for call in calls(settings) if call.usage) * dollars / 1e6


def test_a_tenth_of_the_money_stops_at_a_tenth_and_the_rest_pays_for_the_rest(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = settings.server  # type: ignore[attr-defined]
    # What the run costs on the server's count, to be made ten dollars.
    run(settings("unlimited"))
    dollars = 10 / (sum(call.usage.total for call in calls(settings)) / 1e6)
    whole = len(calls(settings))
    set_prices(tmp_path / "prices.json", settings, monkeypatch, dollars)
    # Useless but billed answers and time-outs among them.
    useless = (faults.REFUSED, faults.FILTERED, faults.WHITESPACE, faults.HALF_BODY, faults.MALFORMED_JSON)
    server.engine.faults = FaultPlan.random(0.1, seed=3, faults=useless, keyed_by="content")
    server.reset()
    shards.forget_contexts()
    assert main(["build", *as_arguments(settings("capped")), "--budget", "1", "--prefect", "off"]) == 3
    told = capsys.readouterr().err
    assert "budget of $1.00 reached" in told and "higher --budget" in told
    spent = billed(settings, dollars)
    assert 0 < spent <= 1.0
    journal = Journal(tmp_path / "capped" / "work" / "journal.db")
    assert spent <= journal.spent() + 1e-9 <= 1.0 + 2e-9
    first = len(calls(settings))
    assert journal.all_calls() == first
    # The rest, without faults: nothing that was answered is asked again.
    answered = {call.key for call in calls(settings) if call.completed and call.fault is None}
    server.engine.faults = FaultPlan.none()
    shards.forget_contexts()
    assert main(["build", *as_arguments(settings("capped")), "--budget", "100", "--prefect", "off"]) == 0
    later = [call.key for call in calls(settings)[first:]]
    assert not answered & set(later)
    assert len(answered) + len(later) == pytest.approx(whole, abs=0.1 * whole)


def test_rows_that_only_the_provider_failed_are_asked_again_and_no_others(settings: Settings) -> None:
    server = settings.server  # type: ignore[attr-defined]
    down = FaultPlan.random(0.3, seed=5, faults=[faults.SERVER_ERROR, faults.REFUSED], keyed_by="content")

    def always_the_same(number: int, request: Any, attempt: int) -> str | None:
        return down.draw(number, request, 1)

    server.engine.faults = FaultPlan(always_the_same)
    config = settings(policy__attempts=2, reviser__attempts=2)
    first, warnings = run(config)
    ledger = rejects(first)
    unanswered = {row["id"] for row in ledger if row["reason"] == "server_error"}
    assert unanswered
    assert first.manifest["unanswered"] == len(unanswered)
    assert any("calls for these alone" in line for line in warnings)
    assert first.calls == len(calls(settings))
    # Still down: the same rows, and only they, are asked again.
    before = len(calls(settings))
    again, _ = run(config)
    asked = calls(settings)[before:]
    assert again.manifest["rows"] == first.manifest["rows"]
    assert again.calls == len(asked) == 2 * len(unanswered)
    assert {call.fault for call in asked} == {faults.SERVER_ERROR}
    # Up again: they are answered, and nothing remains to be done.
    server.engine.faults = FaultPlan.none()
    healed, warnings = run(config)
    assert healed.manifest["unanswered"] == 0
    assert not any("calls for these alone" in line for line in warnings)
    reasons = {row["reason"] for row in rejects(healed)}
    assert "server_error" not in reasons
    before = len(calls(settings))
    done, _ = run(config)
    assert (done.already_done, done.calls, len(calls(settings))) == (True, 0, before)


def test_no_file_and_no_line_of_a_run_holds_the_key(
    settings: Settings, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Through a gateway that repeats the key in what it says of some calls; to its end, then stopped by a refusal."""
    server = settings.server  # type: ignore[attr-defined]
    canary, answer = "sk-canary-whole-0123456789", server.engine.behaviour
    server.engine.key = canary
    caplog.set_level(logging.DEBUG)

    def gateway(request: ChatRequest) -> Reply:
        is_probe = request.last_user.startswith("Reply with")
        if (number := number_from("gateway", request.key)) % 4 == 0 and not is_probe:
            raise BadRequest(f"Incorrect API key provided: {canary}.", status=(400, 500)[number // 4 % 2])
        return answer(request)

    server.engine.behaviour = gateway
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", canary)
        config = settings(policy__attempts=1, reviser__attempts=1)
        for status, ended in ((None, 0), (401, 1)):
            server.engine.faults = FaultPlan.always(str(status)) if status else FaultPlan.none()
            shards.forget_contexts()
            again = ["--set", "reviser.max_tokens=100", "--set", "policy.seed=3"] if status else []
            assert main(["build", *as_arguments(config), *again, "--prefect", "off", "--json"]) == ended
    told = capsys.readouterr()
    assert "bad_request" in told.out and "refuses every call" in told.err
    assert canary not in told.out + told.err + caplog.text
    for file in config.out.rglob("*"):
        assert not file.is_file() or canary.encode() not in file.read_bytes(), file
        if file.suffix == ".parquet":
            # Compressed: read, not searched.
            assert canary not in str(pq.read_table(file).to_pylist()), file


def rejects(outcome: Outcome) -> list[dict[str, Any]]:
    files = sorted((outcome.out / "rejected").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def test_an_outage_stops_the_run_and_rejects_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "BREAKER", 5)
    server = settings.server  # type: ignore[attr-defined]
    server.engine.faults = FaultPlan(lambda number, request, attempt: faults.UNAVAILABLE if number > 10 else None)
    config = settings(policy__attempts=2)
    with pytest.raises(ProviderStopped, match=r"\d+ rows in a row failed, the last with: status 503"):
        run(config)
    assert not (config.out / "manifest.json").exists()
    completed = {call.key for call in calls(settings) if call.completed}
    before = len(calls(settings))
    server.engine.faults = FaultPlan.none()
    outcome, _ = run(config)
    assert outcome.manifest["unanswered"] == 0
    assert not completed & {call.key for call in calls(settings)[before:]}


def test_fewer_rows_than_an_outage_takes_stop_as_well_when_none_was_answered(settings: Settings) -> None:
    """A first try with a few rows and a wrong address must not end as a valid empty data set."""
    server = settings.server  # type: ignore[attr-defined]
    server.engine.faults = FaultPlan.always(faults.NOT_FOUND)
    config = settings(source__limit=4)
    with pytest.raises(
        ProviderStopped, match=r"4 rows in a row failed, the last with: status 404.*check the model's name"
    ):
        run(config)
    assert not (config.out / "manifest.json").exists()
    # Of a model that has answered before, single rows may fail.
    server.engine.faults = FaultPlan(lambda number, request, attempt: faults.UNAVAILABLE if number == 10 else None)
    outcome, _ = run(settings("few", source__limit=4, reviser__attempts=1, policy__attempts=1, selection__eta1="off"))
    assert outcome.manifest["unanswered"]


def test_what_a_server_finds_wrong_with_a_request_is_told(settings: Settings) -> None:
    server = settings.server  # type: ignore[attr-defined]
    server.engine.faults = FaultPlan(lambda number, request, attempt: faults.UNPROCESSABLE if number < 5 else None)
    outcome, warnings = run(settings(source__limit=3))
    assert outcome.manifest["rows"]["read"] == 3
    told = next(line for line in warnings if "refused requests" in line)
    assert "status 422" in told


def test_a_damaged_journal_is_told_and_finished_shards_stay(settings: Settings) -> None:
    first, _ = run(settings())
    journal = first.out / "work" / "journal.db"
    first.context.journal.close()  # type: ignore[union-attr]
    journal.write_bytes(b"not a journal at all " * 500)
    before = len(calls(settings))
    (first.out / "manifest.json").unlink()
    second, warnings = run(settings())
    assert any("the journal of paid answers was damaged" in line for line in warnings)
    assert len(calls(settings)) == before + 2, "the two probes, which only the damaged journal has"
    assert second.manifest["rows"] == first.manifest["rows"]


def test_unknown_prices_are_said_to_be_unknown(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    shards.forget_contexts()
    config = settings()
    assert main(["build", *as_arguments(config), "--prefect", "off"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"cost of {config.policy.model}, {config.reviser.model} unknown" in shown
    manifest = json.loads((config.out / "manifest.json").read_text("utf-8"))
    assert manifest["unpriced"] == [config.policy.model, config.reviser.model]
    assert f"cost of {config.policy.model}, {config.reviser.model} unknown" in (config.out / "README.md").read_text(
        "utf-8"
    )


def test_what_was_answered_before_its_price_was_known_stays_unknown(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings("out", source__limit=20)
    shards.forget_contexts()
    before = curate(config, in_threads, Silent()).manifest
    assert len(before["unpriced"]) == 2 and before["cost_usd"] == 0
    set_prices(tmp_path / "prices.json", settings, monkeypatch, 1.0)
    shards.forget_contexts()
    reporter = Silent()
    after = curate(settings("out", run__budget_usd=1.0), in_threads, reporter).manifest
    assert after["unpriced"] == before["unpriced"] and after["cost_usd"] > 0
    assert [price["from"] for price in before["prices"]] == ["unknown", "unknown"]
    assert {price["from"] for price in after["prices"]} == {"prices.json (FIGA_PRICES), as of today"}
    assert [price["role"] for price in after["prices"]] == ["policy", "reviser"]
    assert any("before the price was known" in told for told in reporter.warnings)
