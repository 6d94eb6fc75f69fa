"""What Prefect adds: to 20 shards × 512 rows at 50 ms a call, 16 at a time; to the first call; 1,998 task runs in one flow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import Figure, child, ratios, repeated
from tests.conftest import CHAT_TEMPLATE, SAMPLE
from tests.flows.server import ask, prefect_server
from tests.labels.families import byte_level, fast
from tests.loopback.server import KEY, LoopbackProcess

_QUIET_S = 10.0


def run(*, quick: bool) -> list[Figure]:
    shards, rows, tasks, repeats = (2, 32, 48, 1) if quick else (20, 512, 1998, 3)
    with (
        tempfile.TemporaryDirectory() as scratch,
        LoopbackProcess("--behaviour", "policy", "--latency", "0.05") as server,
        prefect_server(Path(scratch) / "prefect") as (environment, _),
    ):
        source = Path(scratch) / "queries.jsonl"
        _write_queries(source, shards * rows)
        tokenizer = Path(scratch) / "tokenizer"
        fast(byte_level(), eos_token="<|im_end|>", chat_template=CHAT_TEMPLATE).save_pretrained(tokenizer)
        settings = _settings(server.openai_url, source, rows, tokenizer)
        seconds = _Runs(Path(scratch), settings, environment)
        pairs = ratios(lambda: seconds("prefect"), lambda: seconds("plain"), repeats)
        first = ratios(lambda: seconds.first_call("server", server), lambda: seconds.first_call("off", server), repeats)
        took = seconds("tasks", tasks)
        counted = _settled(lambda: ask(environment, "task_runs/count", **_OF_ONE_FLOW))
        completed = ask(environment, "task_runs/count", **_OF_ONE_FLOW, task_runs=_COMPLETED)
        said = (Path(scratch) / "prefect" / "server.log").read_text()
        refused = sum(any(word in line for word in (" 503 ", "locked", "ERROR")) for line in said.splitlines())
    return [
        repeated("run without Prefect", "s", [limit for _, limit in pairs]),
        repeated("run through a Prefect server", "s", [measured for measured, _ in pairs]),
        repeated("with ÷ without", "×", [measured / limit for measured, limit in pairs], "≤ 1.06"),
        repeated("first call without Prefect, after the start", "s", [limit for _, limit in first]),
        repeated("first call through a server, with ÷ without", "×", [a / b for a, b in first], "≤ 2"),
        Figure("task runs in one flow, as the server counts them", counted, "", target=f"{tasks}"),
        Figure("of them completed", completed, "", target=f"{tasks}"),
        Figure("errors, locks and 503s in the server's log", refused, "", target="0"),
        Figure("task runs a second", tasks / took, "1/s"),
        Figure("10,000 of them, at that rate", 10_000 * took / tasks, "s"),
    ]


_OF_ONE_FLOW = {"flows": {"name": {"any_": ["many"]}}}
_COMPLETED = {"state": {"type": {"any_": ["COMPLETED"]}}}


def _settled(count: Callable[[], int]) -> int:
    """The count when it no longer grows: the server works off its queue of events."""
    last, since = count(), time.monotonic()
    while time.monotonic() - since < _QUIET_S:
        time.sleep(0.5)
        if (now := count()) != last:
            last, since = now, time.monotonic()
    return last


class _Runs:
    """Each run is a process of its own with a folder of its own."""

    def __init__(self, scratch: Path, settings: dict[str, Any], environment: dict[str, str]) -> None:
        self._scratch, self._settings, self._environment = scratch, settings, environment
        self._number = 0

    def _folder(self) -> str:
        self._number += 1
        return str(self._scratch / f"run-{self._number}")

    def _extra(self) -> dict[str, str]:
        names = ("PREFECT_HOME", "PREFECT_API_URL", "PREFECT_SERVER_ANALYTICS_ENABLED")
        extra = {name: self._environment[name] for name in names}
        return extra | {"OPENAI_API_KEY": KEY, "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}

    def __call__(self, kind: str, count: int = 0) -> float:
        arguments = kind, self._folder(), json.dumps(self._settings), str(count)
        done = child("tests.benchmarks._orchestration", *arguments, **self._extra())
        return float(json.loads(done.stdout.splitlines()[-1])["seconds"])

    def first_call(self, prefect: str, server: LoopbackProcess) -> float:
        """Seconds from the command line to the first answered call, of a run that ends then."""
        settings = [f"{name}={value}" for name, value in self._settings.items()]
        command = [sys.executable, "-m", "pipeline", "build", "--source", "hh-rlhf", "--out", self._folder()]
        before, start = server.stats()["completed"], time.perf_counter()
        run = subprocess.Popen(
            [*command, "--prefect", prefect, "--set", *settings],
            env=os.environ | self._extra(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while server.stats()["completed"] == before:
            if run.poll() is not None:
                raise RuntimeError(f"the run ended with exit code {run.returncode} before its first call")
            time.sleep(0.02)
        took = time.perf_counter() - start
        run.terminate()
        run.wait()
        return took


def _settings(url: str, source: Path, rows: int, tokenizer: Path) -> dict[str, Any]:
    return {
        "source.input": str(source),
        "source.shard_rows": rows,
        "policy.model": f"openai/policy@{url}",
        "policy.api_key_env": "OPENAI_API_KEY",
        "reviser.api_key_env": "OPENAI_API_KEY",
        "policy.concurrency": 16,
        "reviser.model": f"openai/reviser@{url}",
        "labels.tokenizer": str(tokenizer),
        # Nothing is selected: what is measured is the calls of one stage and the bookkeeping of all.
        "selection.eta1": -1e9,
    }


def _write_queries(path: Path, count: int) -> None:
    """The bundled conversations, numbered, so that no two are duplicates."""
    rows = [json.loads(line) for line in SAMPLE.read_text("utf-8").splitlines()]
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            row = rows[number % len(rows)]
            file.write(json.dumps({k: v.replace("Human: ", f"Human: ({number}) ", 1) for k, v in row.items()}) + "\n")
