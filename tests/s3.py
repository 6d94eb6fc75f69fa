"""A real S3 server process on the loopback interface, with one empty bucket."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

BUCKET = "figa"
# In a process of its own, until its standard input ends: the one that starts it may fork.
_SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def server() -> Iterator[dict[str, str]]:
    """Start it; yields the environment that leads to it."""
    child = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert child.stdin and child.stdout
    try:
        environment = {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{int(child.stdout.readline())}",
            "NO_PROXY": "*",
        }
        in_child(environment, lambda: __import__("fsspec").filesystem("s3").mkdir(BUCKET))
        yield environment
    finally:
        child.stdin.close()
        child.wait(10)


def in_child(environment: dict[str, str], work: Any) -> None:
    """Do something in a fork: this process starts no thread, and keeps its environment."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.environ.update(environment)
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
