"""A real Prefect server in a temporary home, and the processes around it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from flows.artifacts import PUBLISHED
from tests.conftest import ROOT, child_environment
from tests.loopback.server import KEY

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


@pytest.fixture(scope="package")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which a fresh Prefect server answers."""
    with prefect_server(tmp_path_factory.mktemp("prefect")) as (environment, _):
        yield environment


@pytest.fixture(scope="package")
def deployed(prefect: dict[str, str]) -> dict[str, str]:
    """The environment in which all deployments are on the server."""
    environment = prefect | {"OPENAI_API_KEY": KEY}
    run([*PREFECT, "work-pool", "create", "figa", "--type", "process"], environment)
    run([*PREFECT, "--no-prompt", "deploy", "--all"], environment)
    return environment


@pytest.fixture(scope="package")
def worker(deployed: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which a worker waits for the deployments' runs."""
    command = [*PREFECT, "worker", "start", "--pool", "figa"]
    with process(command, deployed, tmp_path_factory.mktemp("worker") / "worker.log"):
        yield deployed


@contextmanager
def prefect_server(home: Path, **extra: str) -> Iterator[tuple[dict[str, str], subprocess.Popen[bytes]]]:
    """The environment of a server of its own, and the server's process."""
    home.mkdir(exist_ok=True)
    port = free_port()
    environment = child_environment(
        PREFECT_HOME=str(home),
        PREFECT_API_URL=f"http://127.0.0.1:{port}/api",
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        # Else the page asks the port that a server has by default.
        PREFECT_SERVER_UI_API_URL=f"http://127.0.0.1:{port}/api",
        FIGA_HOME=str(ROOT),
        **extra,
    )
    server = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with process(server, environment, home / "server.log") as child:
        deadline = time.monotonic() + 300
        while not answers(f"http://127.0.0.1:{port}/api/health"):
            assert time.monotonic() < deadline, (home / "server.log").read_text()
            time.sleep(0.3)
        yield environment, child


def said_by(environment: dict[str, str], flow_run: str) -> list[str]:
    """The log of a flow run and of its tasks, as the server has it."""
    mine = {"flow_run_id": {"any_": [flow_run]}}
    return [line["message"] for line in ask(environment, "logs/filter", logs=mine, limit=200)]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def wait_for(what: Callable[[], Any], seconds: float = 300) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def run(command: list[str], environment: dict[str, str], cwd: Path = ROOT) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _busy(error: BaseException) -> bool:
    return isinstance(error, urllib.error.HTTPError) and error.code == 503


@retry(retry=retry_if_exception(_busy), wait=wait_fixed(0.5), stop=stop_after_delay(60), reraise=True)
def ask(environment: dict[str, str], path: str, **body: Any) -> Any:
    """The answer of the server's REST API to a POST.

    A server on SQLite says 503 while another holds its database, and has done nothing: Prefect's own client asks again.
    """
    request = urllib.request.Request(
        f"{environment['PREFECT_API_URL']}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


def told_of(environment: dict[str, str], out: Path) -> dict[str, Any]:
    """The payload of the event that says that `out` is published. Events reach the server in their own time."""

    def look() -> list[dict[str, Any]]:
        events = ask(environment, "events/filter", filter={"event": {"name": [PUBLISHED]}})["events"]
        return [event["payload"] for event in events if event["payload"]["out"] == str(out.resolve())]

    (payload,) = wait_for(look)
    return payload  # type: ignore[no-any-return]
