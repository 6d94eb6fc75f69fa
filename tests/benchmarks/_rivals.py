"""Other tools that ask models, in throwaway environments of their own, and what a process of theirs or ours takes.

The environments are made by pip at the first use and deleted at the end; `FIGA_RIVALS=DIR` keeps them there for the next
time. What can't be installed is skipped, with pip's reason.
"""

from __future__ import annotations

import atexit
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.loopback import KEY, LoopbackProcess

SCRIPTS = Path(__file__).parent / "rivals"
_ROOT = Path(__file__).parents[2]
_LOOK_S = 0.05
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6


class Skipped(Exception):
    """A rival that isn't measured; the text says why."""


@dataclass(frozen=True, slots=True)
class Tool:
    """`packages`: what pip installs for it; none for this project, which runs in the environment of the benchmark."""

    name: str
    script: str
    packages: tuple[str, ...] = ()


OURS = Tool("ours", "ask_ours.py")
# distilabel imports requests without asking for it. Of litellm Data Designer gets a vocabulary alone.
RIVALS = (
    Tool("Curator", "ask_curator.py", ("bespokelabs-curator",)),
    Tool("distilabel", "ask_distilabel.py", ("distilabel[openai]", "requests")),
    Tool("Data Designer", "ask_data_designer.py", ("data-designer", "litellm")),
)


@dataclass(frozen=True, slots=True)
class Run:
    """What a tool took. `wall`: from its start to its end, seconds; `cpu`: of the processes that it waited for, seconds;
    `peak_mb`: resident memory of all its processes.

    `span`: from the first request that the server got to the last answer that it gave, seconds; `first`: from the start to
    that request.
    """

    wall: float
    cpu: float
    peak_mb: float
    span: float
    first: float


@cache
def _folder() -> Path:
    if kept := os.environ.get("FIGA_RIVALS"):
        return Path(kept).absolute()
    folder = Path(tempfile.mkdtemp(prefix="rivals-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def python(tool: Tool) -> str:
    """The interpreter that has the tool. Raises Skipped."""
    if not tool.packages:
        return sys.executable
    own = _folder() / tool.name.lower().replace(" ", "-")
    interpreter, done = own / "bin" / "python", own / "installed"
    if not done.exists():
        print(f"installing {' '.join(tool.packages)} …", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", own], check=True)
        command: list[str | Path] = [interpreter, "-m", "pip", "install", "-q", *tool.packages]
        installed = subprocess.run(command, capture_output=True, text=True, check=False)
        if installed.returncode:
            raise Skipped(f"pip can't install it: {(installed.stderr.strip() or 'no reason given').splitlines()[-1]}")
        done.touch()
    return str(interpreter)


def version(tool: Tool) -> str:
    name = tool.packages[0].partition("[")[0]
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    return f"{name} {subprocess.run([python(tool), '-c', code], capture_output=True, text=True, check=True).stdout.strip()}"


def write_prompts(path: Path, count: int) -> None:
    """Prompts of 200 tokens or so; the responses are for whoever wants a whole row."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            prompt = f"Question {number}: {'why is the sky blue, and what follows? ' * 20}"
            file.write(json.dumps({"prompt": prompt, "response": f"For reason {number}."}) + "\n")


def ask(tool: Tool, prompts: Path, folder: Path, server: LoopbackProcess, workers: int) -> list[str]:
    """The command by which a tool answers the prompts into folder/answers.jsonl."""
    script = str(SCRIPTS / tool.script)
    return [python(tool), script, str(prompts), str(folder / "answers.jsonl"), server.openai_url, str(workers)]


@contextmanager
def running(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, with `folder` as its home; what is left of it at the end is killed."""
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "OPENAI_API_KEY": KEY, "HOME": str(folder)}
    environment |= {"TELEMETRY_ENABLED": "false", "NEMO_TELEMETRY_ENABLED": "false"}
    if command[0] == sys.executable:
        environment["PYTHONPATH"] = str(_ROOT)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield process
        finally:
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to every process of its session, as when a machine is lost."""
    for pid, _ in _session(process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _session(leader: int) -> list[tuple[int, float]]:
    """The living processes of a session with their resident memory, MB."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader and fields[0] != "Z":
                    found.append((int(entry.name), int(fields[21]) * _PAGE_MB))
    return found


def measured(command: list[str], folder: Path, server: LoopbackProcess, answers: int, timeout_s: float) -> Run:
    """Run to the end. Raises Skipped when it fails, takes longer than timeout_s, or leaves another number of answers."""
    peak, over = 0.0, threading.Event()

    def look(leader: int) -> None:
        nonlocal peak
        while not over.wait(_LOOK_S):
            peak = max(peak, sum(megabytes for _, megabytes in _session(leader)))

    start, began_at, cpu = time.perf_counter(), time.time(), _children()
    with running(command, folder) as process:
        watcher = threading.Thread(target=look, args=(process.pid,))
        watcher.start()
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise Skipped(f"not done after {timeout_s:.0f} s") from None
        finally:
            wall = time.perf_counter() - start
            over.set()
            watcher.join()
    if code:
        last = (folder / "log").read_text("utf-8", "replace").strip().splitlines()[-1:]
        raise Skipped(f"it ended with code {code}: {''.join(last)[:200]}")
    told = folder / "answers.jsonl"
    if answers and (got := len(told.read_text("utf-8").splitlines())) != answers:
        raise Skipped(f"{got} of {answers} answers")
    calls = [call for call in records(server) if call["completed"]]
    times = [(call["time"], call["time"] + call["seconds"]) for call in calls] or [(0.0, 0.0)]
    first = min(began for began, _ in times)
    return Run(wall, _children() - cpu, peak, max(end for _, end in times) - first, first - began_at)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def records(server: LoopbackProcess) -> list[dict[str, Any]]:
    """The calls that the server could read: Curator also sends an empty one, to see its limits."""
    return [record for record in server.stats(records=True)["records"] if record["key"]]


def repeated_calls(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> tuple[int, int]:
    """Of the calls in `after`, those that were asked before, and those that had been answered in full."""
    asked = {record["key"] for record in before}
    answered = {record["key"] for record in before if record["completed"]}
    counted = Counter(record["key"] for record in after)
    again = sum(counted[key] for key in counted.keys() & asked) + sum(
        n - 1 for k, n in counted.items() if k not in asked
    )
    return again, sum(counted[key] for key in counted.keys() & answered)
