"""The flow on a real Prefect: a server of its own in a temporary home, a worker, a deployment, and the command line."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pipeline.config import CurationConfig
from pipeline.curate import curate, in_threads
from tests.conftest import ROOT, Silent, as_arguments, child_environment
from tests.test_run import files

PREFECT = [sys.executable, "-m", "prefect"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A background process, ended by its own id."""
    with log.open("wb") as out:
        child = subprocess.Popen(command, env=environment, cwd=log.parent, stdout=out, stderr=subprocess.STDOUT)
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which a fresh Prefect server answers."""
    home = tmp_path_factory.mktemp("prefect")
    port = free_port()
    environment = child_environment(
        PREFECT_HOME=str(home),
        PREFECT_API_URL=f"http://127.0.0.1:{port}/api",
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        PREFECT_SERVER_UI_ENABLED="false",
        FIGA_HOME=str(ROOT),
    )
    server = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with process(server, environment, home / "server.log"):
        deadline = time.monotonic() + 90
        while not answers(f"http://127.0.0.1:{port}/api/health"):
            assert time.monotonic() < deadline, (home / "server.log").read_text()
            time.sleep(0.3)
        yield environment


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def run(command: list[str], environment: dict[str, str], cwd: Path = ROOT) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_command_line_through_a_server_gives_the_same_bytes(
    settings: Callable[..., CurationConfig], prefect: dict[str, str]
) -> None:
    plain = curate(settings("plain"), in_threads, Silent())
    config = settings("flow")
    environment = {**prefect, "OPENAI_API_KEY": os.environ["OPENAI_API_KEY"]}
    said = run([sys.executable, "-m", "pipeline.build", *as_arguments(config), "--json"], environment)
    assert json.loads(said)["calls"] == plain.calls
    assert files(config.out) == files(plain.out)
    listed = json.loads(run([*PREFECT, "flow-run", "ls", "--output", "json"], environment))
    assert {"curate-hh-rlhf"} <= {item["name"] for item in listed}


def test_the_deployment_runs_on_a_worker(
    settings: Callable[..., CurationConfig], prefect: dict[str, str], tmp_path: Path
) -> None:
    plain = curate(settings("plain"), in_threads, Silent())
    config = settings("deployed")
    environment = {**prefect, "OPENAI_API_KEY": os.environ["OPENAI_API_KEY"]}
    with ExitStack() as stack:
        run([*PREFECT, "work-pool", "create", "figa", "--type", "process"], environment)
        run([*PREFECT, "--no-prompt", "deploy", "--all"], environment)
        worker = [*PREFECT, "worker", "start", "--pool", "figa"]
        stack.enter_context(process(worker, environment, tmp_path / "worker.log"))
        parameter = json.dumps(config.model_dump(mode="json"))
        command = [*PREFECT, "deployment", "run", "curate/hh-rlhf", "--param", f"config={parameter}", "--watch"]
        said = run(command, environment, tmp_path)
    assert "Completed" in said, said + (tmp_path / "worker.log").read_text()
    assert files(config.out) == files(plain.out)


def test_a_bad_parameter_is_refused_at_submit(prefect: dict[str, str]) -> None:
    command = [*PREFECT, "deployment", "run", "curate/hh-rlhf", "--param", 'config={"filter": {"max_distance": 7}}']
    done = subprocess.run(command, capture_output=True, text=True, env=prefect, cwd=ROOT, timeout=60, check=False)
    assert done.returncode != 0
    assert "max_distance" in done.stdout + done.stderr
