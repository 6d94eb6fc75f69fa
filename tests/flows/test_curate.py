"""The flow on a real Prefect: a server of its own in a temporary home, a worker, a deployment, and the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError

import pytest

from pipeline.config.settings import CurationConfig
from pipeline.curate import curate, in_threads
from pipeline.rewards import diagnostics
from tests.conftest import ROOT, Silent, as_arguments
from tests.flows.server import PREFECT, ask, run, said_by, wait_for
from tests.test_run import files


def test_the_command_line_through_a_server_gives_the_same_bytes(
    settings: Callable[..., CurationConfig], prefect: dict[str, str]
) -> None:
    plain = curate(settings("plain"), in_threads, Silent())
    config = settings("flow")
    environment = {**prefect, "OPENAI_API_KEY": os.environ["OPENAI_API_KEY"]}
    said = run([sys.executable, "-m", "pipeline", "build", *as_arguments(config), "--json"], environment)
    assert json.loads(said)["calls"] == plain.calls
    assert files(config.out) == files(plain.out)
    listed = json.loads(run([*PREFECT, "flow-run", "ls", "--output", "json"], environment))
    assert "curate-hh-rlhf-all" in {item["name"] for item in listed}


@pytest.mark.slow
def test_a_target_is_met_in_the_same_steps(
    settings: Callable[..., CurationConfig], prefect: dict[str, str], tmp_path: Path
) -> None:
    line = '{{"prompt": "Question {n}?", "initial": "It is one.", "revised": "It is {what}."}}\n'
    rows = "".join(line.format(n=n, what="one" if n % 4 else "two") for n in range(300))
    (tmp_path / "pairs.jsonl").write_text(rows, "utf-8")
    flags = {"source__name": "jsonl", "source__input": str(tmp_path / "pairs.jsonl"), "source__target": 40}
    plain, config = curate(settings("plain", **flags), in_threads, Silent()), settings("flow", **flags)
    said = run([sys.executable, "-m", "pipeline", "build", *as_arguments(config), "--json"], prefect)
    assert json.loads(said)["rows"]["published"] == plain.manifest["rows"]["published"] == 40
    assert 160 <= plain.manifest["rows"]["read"] < 300
    assert files(config.out) == files(plain.out)


@pytest.mark.slow
def test_the_deployment_runs_on_a_worker(
    settings: Callable[..., CurationConfig], worker: dict[str, str], tmp_path: Path
) -> None:
    plain = curate(settings("plain"), in_threads, Silent())
    config = settings("deployed")
    parameter = json.dumps(config.model_dump(mode="json"))
    command = [*PREFECT, "deployment", "run", "curate/hh-rlhf", "--param", f"config={parameter}", "--watch"]
    assert "Completed" in run(command, worker, tmp_path)
    assert files(config.out) == files(plain.out)
    (warned,) = diagnostics.warnings(plain.manifest)
    # What is published is verified by another flow run, which may have started by now.
    mine = {"name": {"like_": "curate-"}}
    (ended,) = ask(worker, "flow_runs/filter", flow_runs=mine, sort="START_TIME_DESC", limit=1)
    wait_for(lambda: warned in said_by(worker, ended["id"]))


def test_the_form_of_a_deployment_explains_every_setting(deployed: dict[str, str]) -> None:
    (deployment,) = ask(deployed, "deployments/filter", deployments={"name": {"any_": ["hh-rlhf"]}})
    sections = deployment["parameter_openapi_schema"]["definitions"]
    settings = {f"{name}.{key}": v for name, s in sections.items() for key, v in s.get("properties", {}).items()}
    unexplained = [name for name, value in settings.items() if not (value.get("description") or "$ref" in str(value))]
    assert len(settings) > 40 and not unexplained
    made = ask(deployed, "deployments/filter")
    names = {
        "hh-rlhf",
        "sharegpt",
        "shp",
        "synthetic-gptj",
        "openorca",
        "paper-mix",
        "relabel",
        "verify",
        "train",
        "rounds",
    }
    assert {each["name"] for each in made} == names
    assert all(not schedule["active"] for each in made for schedule in each["schedules"])
    # The worker's own folder is meant, not that of whoever deployed.
    assert all(each["path"] is None and each["pull_steps"] for each in made)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("filter", "max_distance", 7),
        ("source", "name", "hh-rlfh"),
        ("policy", "model", "gpt-4o"),
        ("selection", "eta1", "half"),
        ("reviser", "modle", "openai/gpt-4o-mini"),
    ],
)
def test_a_bad_parameter_is_refused_at_submit(
    deployed: dict[str, str], section: str, field: str, value: object
) -> None:
    (deployment,) = ask(deployed, "deployments/filter", deployments={"name": {"any_": ["hh-rlhf"]}})
    with pytest.raises(HTTPError) as refused:
        ask(
            deployed,
            f"deployments/{deployment['id']}/create_flow_run",
            parameters={"config": {section: {field: value}}},
        )
    said = json.load(refused.value)["detail"]
    assert refused.value.code == 409 and f"config.{section}" in said and field in said, said


@pytest.mark.slow
def test_prefect_tells_of_a_bad_parameter(deployed: dict[str, str]) -> None:
    command = [*PREFECT, "deployment", "run", "curate/hh-rlhf", "--param", 'config={"filter": {"max_distance": 7}}']
    done = subprocess.run(command, capture_output=True, text=True, env=deployed, cwd=ROOT, timeout=60, check=False)
    assert done.returncode != 0
    assert "config.filter.max_distance" in "".join((done.stdout + done.stderr).split())
