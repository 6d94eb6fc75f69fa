"""What a flow run shows, and what becomes of it when it is cancelled or the server dies."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.artifacts import PUBLISHED
from pipeline.config import CurationConfig
from pipeline.curate import curate, in_threads
from tests.conftest import Silent, as_arguments
from tests.flows.server import PREFECT, ask, prefect_server, process, run
from tests.test_run import files


def build(config: CurationConfig) -> list[str]:
    return [sys.executable, "-m", "pipeline.build", *as_arguments(config)]


def keyed(environment: dict[str, str]) -> dict[str, str]:
    return {**environment, "OPENAI_API_KEY": os.environ["OPENAI_API_KEY"]}


def wait_for(what: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def test_artifacts_and_the_event_tell_of_a_published_set(
    settings: Callable[..., CurationConfig], prefect: dict[str, str]
) -> None:
    config = settings("told")
    run(build(config), keyed(prefect))
    made = {a["key"]: a for a in ask(prefect, "artifacts/latest/filter")}
    assert {"figa-funnel", "figa-money", "figa-thresholds", "figa-diffs", "figa-data", "figa-revise"} <= set(made)
    funnel = json.loads(made["figa-funnel"]["data"])
    assert funnel[0] == {"stage": "source", "in": 40, "out": 40, "rejected": ""}
    assert made["figa-revise"]["data"] == 100
    lines = made["figa-diffs"]["data"].split("\n")
    assert "{+" in made["figa-diffs"]["data"] and all(line.startswith("    ") for line in lines)
    told = wait_for(lambda: ask(prefect, "events/filter", filter={"event": {"name": [PUBLISHED]}})["events"])
    assert (
        told[0]["payload"]["published"] == json.loads((config.out / "manifest.json").read_text())["rows"]["published"]
    )
    assert len(told[0]["payload"]["manifest_sha256"]) == 64


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
    (mine,) = [flow_run for flow_run in running if flow_run["deployment_id"]]
    run([*PREFECT, "flow-run", "cancel", mine["id"]], worker)
    state = {"id": {"any_": [mine["id"]]}, "state": {"type": {"any_": ["CANCELLED"]}}}
    wait_for(lambda: ask(worker, "flow_runs/filter", flow_runs=state), 30)
    settled = server.completed
    assert settled < before + 40
    time.sleep(2)
    assert server.completed == settled, "calls went on after the cancellation"
    server.engine.latency = 0.0
    run([*submit, "--watch"], worker)
    assert files(config.out) == files(plain.out)
