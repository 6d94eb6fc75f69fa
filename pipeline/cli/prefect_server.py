"""A Prefect server from outside: whether one answers, and one of the run's own for `--prefect ephemeral`. Needs no Prefect.

A server of the run's own never outlives it, however the run ends. Prefect would leave the one that it starts itself behind
when the run is killed.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from typing import IO

from pipeline.errors import UsageError
from pipeline.storage import stopping
from pipeline.text import one_line

# A busy machine's first start migrates a data base.
_PATIENCE_S = 300.0
# Its standard input ends with the run that started it; on Linux the system sends it a signal too.
_SERVER = """
import ctypes, os, signal, sys, threading

def end_with_the_run():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Timer(3, os._exit, [0]).start()

if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
threading.Thread(target=end_with_the_run, daemon=True).start()

import uvicorn

options = {"host": "127.0.0.1", "port": int(sys.argv[1]), "log_level": "error", "lifespan": "on"}
uvicorn.run("prefect.server.api.server:create_app", factory=True, **options)
"""


def prefect_problem(url: str) -> str | None:
    """Why no server answers here within three seconds (Prefect's own client takes a minute); None when one does."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=3) as response:  # noqa: S310 - the user's own address
            return None if response.status == 200 else f"status {response.status}"
    except (OSError, ValueError, HTTPException) as error:
        return str(error)


def start_server() -> None:
    """Start a server and set PREFECT_API_URL, before Prefect is imported. Raises UsageError saying why none started."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    options = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    command = [sys.executable, "-c", _SERVER, str(port)]
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=os.environ | options, start_new_session=True
        )
        # After Prefect has sent its last lines: what is registered later runs earlier.
        atexit.register(_end, child)
        _wait(child, url, log)
    os.environ["PREFECT_API_URL"] = url


def _wait(child: subprocess.Popen[bytes], url: str, log: IO[bytes]) -> None:
    patience = float(os.environ.get("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", _PATIENCE_S))
    deadline = time.monotonic() + patience
    while prefect_problem(url):
        stopping.check()
        if child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
            continue
        log.seek(0)
        said = log.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
        why = f"ended with {one_line(said)}" if child.poll() is not None else f"didn't answer within {patience:g} s"
        raise UsageError(f"--prefect ephemeral: Prefect's server {why}; free the cause, or use --prefect off")


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the server in order, or else its whole process group."""
    if child.stdin:
        child.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        child.wait(5)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
