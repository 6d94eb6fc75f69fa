"""Model calls: a bare loop over the same SDK, Curator, distilabel and Data Designer, and reruns from the journal.

2,000 calls to a server that takes 100 ms, 64 at a time: 3.1 s if nothing else took any. Against the SDK, only the calls are
timed, in one process each. Against the rivals, whole processes are, from start to end, imports and all: a file of prompts in,
a file of answers out (`rivals/`). Each has its own defaults, but for the address, 64 calls at a time (distilabel: batches of
64), for Curator rate limits above what the server can do, which would otherwise hold it to 200 calls a minute, and for NeMo
Data Designer the health check, which would be one call more. Peak memory is the sum over a tool's processes. The whole
pipeline, `figa build`, is told beside them: it also scores each answer twice and publishes.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks import _rivals
from tests.benchmarks._rivals import OURS, RIVALS, Run, Skipped, Tool
from tests.benchmarks.measure import Figure, child, repeated
from tests.conftest import CHAT_TEMPLATE
from tests.labels.families import byte_level, fast
from tests.loopback import KEY, LoopbackProcess

_CALLS, _WORKERS, _LATENCY_S = 2000, 64, 0.1
_REPEATS = 5
_TIMEOUT_S = 180.0
# None was set for Data Designer.
_TARGETS = {"Curator": "at most 0.6", "distilabel": "at most 0.2"}


def run(*, quick: bool) -> list[Figure]:
    calls, repeats = (_CALLS // 20, 1) if quick else (_CALLS, _REPEATS)
    server = LoopbackProcess("--behaviour", "echo", "--latency", str(_LATENCY_S))
    with tempfile.TemporaryDirectory() as name, server:
        return [
            *_speed(Path(name), server, calls, repeats),
            *_against_rivals(Path(name), server, calls, repeats, () if quick else RIVALS),
        ]


def measure(*arguments: object) -> dict[str, Any]:
    """A measurement in a process of its own: `_calls` says which there are."""
    words = map(str, arguments)
    told: dict[str, Any] = json.loads(child("tests.benchmarks._calls", *words, OPENAI_API_KEY=KEY).stdout)
    return told


def _speed(folder: Path, server: LoopbackProcess, calls: int, repeats: int) -> list[Figure]:
    ideal = calls * _LATENCY_S / _WORKERS
    walls, cpus, ideals, reruns = [], [], [], []
    for number in range(repeats):
        file = folder / f"speed-{number}.db"
        bare = measure("bare", server.openai_url, calls, _WORKERS)
        ours = measure("ours", server.openai_url, calls, _WORKERS, file)
        walls.append(ours["wall"] / bare["wall"])
        cpus.append(ours["cpu"] / bare["cpu"])
        ideals.append(ours["wall"] / ideal)
        again = measure("ours", server.openai_url, calls, _WORKERS, file)
        if again["calls"] or again["sdk"]:
            raise RuntimeError(f"a rerun made {again['calls']} calls, SDK imported: {again['sdk']}")
        reruns.append(again["opened"] + again["wall"])
    return [
        repeated("wall / bare loop over the SDK", "×", walls, "at most 1.15"),
        repeated("CPU / bare loop over the SDK", "×", cpus, "at most 1.3"),
        repeated("wall / calls × latency ÷ workers", "×", ideals, "at most 1.6"),
        repeated("rerun from the journal: 0 calls, no SDK", "s", reruns, "at most 0.3"),
    ]


def _against_rivals(
    folder: Path, server: LoopbackProcess, calls: int, repeats: int, rivals: tuple[Tool, ...]
) -> list[Figure]:
    """In turns, so that all see the same load of the machine."""
    prompts = folder / "prompts.jsonl"
    _rivals.write_prompts(prompts, calls)
    commands = {OURS.name: OURS, "the whole pipeline": None} | {rival.name: rival for rival in rivals}
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    skipped: dict[str, str] = {}
    tokenizer = folder / "tokenizer"
    fast(byte_level(), eos_token="<|im_end|>", chat_template=CHAT_TEMPLATE).save_pretrained(tokenizer)
    for number in range(repeats):
        for name, tool in commands.items():
            if name in skipped:
                continue
            own = folder / f"{name.replace(' ', '-')}-{number}"
            server.reset()
            try:
                command = _pipeline(prompts, own, server, tokenizer) if tool is None else None
                command = command or _rivals.ask(tool or OURS, prompts, own, server, _WORKERS)
                runs[name].append(_rivals.measured(command, own, server, calls if tool else 0, _TIMEOUT_S))
            except Skipped as reason:
                if name not in {rival.name for rival in rivals}:
                    raise
                skipped[name] = str(reason)
                print(f"{name} is skipped: {reason}", file=sys.stderr, flush=True)
    return [figure for name in commands for figure in _figures(name, runs, skipped, commands[name])]


def _pipeline(prompts: Path, out: Path, server: LoopbackProcess, tokenizer: Path) -> list[str]:
    """All stages; nothing is selected for a revision, so that it makes the same calls."""
    settings = {
        "policy.model": f"openai/m@{server.openai_url}",
        "policy.api_key_env": "OPENAI_API_KEY",
        "reviser.api_key_env": "OPENAI_API_KEY",
        "policy.concurrency": _WORKERS,
        "reviser.model": f"openai/m@{server.openai_url}",
        "labels.tokenizer": tokenizer,
        "selection.eta1": -1e9,
    }
    flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    options = ["--source", "jsonl", "--input", str(prompts), "--out", str(out / "out"), "--prefect", "off"]
    return [sys.executable, "-m", "pipeline", "build", *options, *flags]


def _figures(name: str, runs: dict[str, list[Run]], skipped: dict[str, str], tool: Tool | None) -> list[Figure]:
    if name in skipped:
        return [Figure(f"{name}: ours / its wall", None, "×", target=f"skipped: {skipped[name]}")]
    own = runs[name]
    label = _rivals.version(tool) if tool and tool.packages else name
    figures = [
        repeated(f"{label}: process, start to end", "s", [run.wall for run in own]),
        repeated(f"{label}: its CPU time", "s", [run.cpu for run in own]),
        repeated(f"{label}: start to first request", "s", [run.first for run in own]),
        repeated(f"{label}: first request to last answer", "s", [run.span for run in own]),
        repeated(f"{label}: peak memory", "MB", [run.peak_mb for run in own]),
    ]
    if tool and tool.packages:
        pairs = list(zip(runs[OURS.name], own, strict=True))
        time_aim, memory_aim = _TARGETS.get(name, ""), "below 0.5" if name in _TARGETS else ""
        figures += [
            repeated(f"ours / {name}: wall", "×", [a.wall / b.wall for a, b in pairs], time_aim),
            repeated(f"ours / {name}: requests to answers", "×", [a.span / b.span for a, b in pairs], time_aim),
            repeated(f"ours / {name}: CPU time", "×", [a.cpu / b.cpu for a, b in pairs]),
            repeated(f"ours / {name}: peak memory", "×", [a.peak_mb / b.peak_mb for a, b in pairs], memory_aim),
        ]
    return figures
