"""What a flow run shows, and what becomes of it when it is cancelled or the server dies."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.config.settings import CurationConfig
from pipeline.curate import curate, in_threads
from tests.conftest import Silent, as_arguments
from tests.flows.server import PREFECT, ask, prefect_server, process, run, said_by, told_of, wait_for
from tests.report.browser import chromium
from tests.test_run import files


def build(config: CurationConfig) -> list[str]:
    return [sys.executable, "-m", "pipeline", "build", *as_arguments(config)]


def keyed(environment: dict[str, str]) -> dict[str, str]:
    return {**environment, "OPENAI_API_KEY": os.environ["OPENAI_API_KEY"]}


def a_finished_run(settings: Callable[..., CurationConfig], prefect: dict[str, str]) -> tuple[Path, dict[str, Any]]:
    """The folder and the flow run of one run through the command line, for all who only look at it."""
    if not _finished:
        config = settings("told")
        run(build(config), keyed(prefect))
        # Deployments of other tests may have been triggered since.
        mine = {"name": {"like_": "curate-hh-rlhf"}}
        (flow_run,) = ask(prefect, "flow_runs/filter", flow_runs=mine, sort="START_TIME_DESC", limit=1)
        _finished.append((config.out, flow_run))
    return _finished[0]


_finished: list[tuple[Path, dict[str, Any]]] = []
_STAGES = ("sample", "score", "select", "revise", "filter", "label")


def test_artifacts_and_the_event_tell_of_a_published_set(
    settings: Callable[..., CurationConfig], prefect: dict[str, str]
) -> None:
    out, flow_run = a_finished_run(settings, prefect)
    assert (flow_run["name"], flow_run["state"]["type"]) == ("curate-hh-rlhf-all", "COMPLETED")
    mine = {"flow_run_id": {"any_": [flow_run["id"]]}}
    made = {a["key"]: a for a in ask(prefect, "artifacts/filter", artifacts=mine)}
    assert set(made) == {"figa-summary", "figa-progress"}
    page = made["figa-summary"]["data"]
    assert "| source | 40 | 40 | – |" in page and "reference_not_good" in page and "R(initial) &#60;" in page
    assert "file:" not in page
    assert made["figa-progress"]["data"] == 100 and "label" in made["figa-progress"]["description"]
    lines = page.partition("tokens\n\n")[2].split("\n")
    assert any("{+" in line for line in lines)
    assert all(line.startswith("    ") and len(line) <= 84 for line in lines)
    manifest = (out / "manifest.json").read_bytes()
    told = told_of(prefect, out)
    assert told["manifest_sha256"] == hashlib.sha256(manifest).hexdigest()
    assert told["published"] == json.loads(manifest)["rows"]["published"]


def test_the_graph_of_tasks_is_the_figure(settings: Callable[..., CurationConfig], prefect: dict[str, str]) -> None:
    _, flow_run = a_finished_run(settings, prefect)
    made = ask(prefect, "task_runs/filter", flow_runs={"id": {"any_": [flow_run["id"]]}})
    assert {task_run["state"]["type"] for task_run in made} == {"COMPLETED"}
    names = {task_run["id"]: task_run["name"] for task_run in made}
    after = {
        task_run["name"]: sorted(names[each["id"]] for each in task_run["task_inputs"].get("wait_for", ()))
        for task_run in made
    }
    shards = [f"{shard:05d}" for shard in range(3)]
    expected = {"source": [], "plan": ["source"]}
    expected |= {
        "thresholds": [f"score {shard}" for shard in shards],
        "publish": [f"label {shard}" for shard in shards],
    }
    for shard in shards:
        first = {"sample": "plan", "select": "thresholds"}
        before = zip(_STAGES, [None, *_STAGES], strict=False)
        expected |= {f"{stage} {shard}": [first.get(stage, f"{previous} {shard}")] for stage, previous in before}
    assert after == expected


def test_logs_have_row_counts_but_neither_texts_nor_keys(
    settings: Callable[..., CurationConfig], prefect: dict[str, str]
) -> None:
    out, flow_run = a_finished_run(settings, prefect)
    said = wait_for(lambda: said_by(prefect, flow_run["id"]))
    assert any(line.startswith("label: ") and "rows" in line for line in said)
    rows = pq.read_table(out / "data", columns=["messages", "reference", "initial", "revised"]).to_pylist()
    texts = {row[name] for row in rows for name in ("reference", "initial", "revised")}
    texts |= {turn["content"] for row in rows for turn in row["messages"]}
    log = "\n".join(said)
    assert os.environ["OPENAI_API_KEY"] not in log
    assert [text for text in texts if len(text) > 20 and text[:40] in log] == []


@pytest.mark.slow
def test_the_page_of_a_flow_run_is_readable(
    settings: Callable[..., CurationConfig], prefect: dict[str, str], tmp_path: Path
) -> None:
    _, flow_run = a_finished_run(settings, prefect)
    base = prefect["PREFECT_API_URL"].removesuffix("/api")
    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(f"{base}/runs/flow-run/{flow_run['id']}")
        page.get_by_text("curate-hh-rlhf-all", exact=True).first.wait_for()
        page.get_by_text("Artifacts", exact=True).click()
        page.locator("a", has_text="figa-progress").last.wait_for()
        page.locator("a", has_text="figa-summary").last.click()
        page.get_by_text("reference_not_good").first.wait_for()
        shown = page.locator("pre", has_text="{+").first
        shown.wait_for()
        # Nothing runs off the page.
        assert shown.evaluate("box => box.scrollWidth <= box.clientWidth")


@pytest.mark.slow
def test_the_data_are_published_though_the_server_dies_in_mid_run(
    settings: Callable[..., CurationConfig], tmp_path: Path
) -> None:
    plain = curate(settings("plain"), in_threads, Silent())
    config = settings("orphan", run__workers=1)
    settings.server.engine.latency = 0.15  # type: ignore[attr-defined]
    with prefect_server(tmp_path / "home") as (prefect, server):
        # At its end the process waits for a minute for the server to take the last events: the data are there before.
        environment = keyed(prefect) | {"PREFECT_CLIENT_MAX_RETRIES": "0"}
        with process(build(config), environment, tmp_path / "build.log"):
            wait_for(lambda: list((config.out / "work" / "sample").glob("*.json")))
            server.send_signal(signal.SIGKILL)
            wait_for((config.out / "manifest.json").exists)
            wait_for(lambda: "Prefect" in (tmp_path / "build.log").read_text())
    assert files(config.out) == files(plain.out)


@pytest.mark.slow
def test_a_cancelled_run_stops_calling_and_is_resumed_by_a_new_one(
    settings: Callable[..., CurationConfig], worker: dict[str, str]
) -> None:
    plain = curate(settings("plain"), in_threads, Silent())
    config = settings("cancelled", run__workers=1, policy__concurrency=1)
    server = settings.server  # type: ignore[attr-defined]
    server.engine.latency = 0.5
    before = server.completed
    parameter = json.dumps(config.model_dump(mode="json"))
    submit = [*PREFECT, "deployment", "run", "curate/hh-rlhf", "--param", f"config={parameter}"]
    run(submit, worker)
    wait_for(lambda: server.completed > before + 2)
    running = ask(worker, "flow_runs/filter", flow_runs={"state": {"type": {"any_": ["RUNNING"]}}})
    (mine,) = [one for one in running if one["deployment_id"] and one["name"].startswith("curate-")]
    run([*PREFECT, "flow-run", "cancel", mine["id"]], worker)
    state = {"id": {"any_": [mine["id"]]}, "state": {"type": {"any_": ["CANCELLED"]}}}
    wait_for(lambda: ask(worker, "flow_runs/filter", flow_runs=state))
    settled = server.completed
    assert settled < before + 40
    time.sleep(2)
    assert server.completed == settled, "calls went on after the cancellation"
    server.engine.latency = 0.0
    run([*submit, "--watch"], worker)
    assert files(config.out) == files(plain.out)
