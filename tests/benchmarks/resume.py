"""Kill −9 half-way and the same command again: what is asked twice, and how long a run with nothing left to ask takes.

2,000 calls at 100 ms, 64 at a time, as in `calls`. When the server has answered a random share of them, from 30 to 70 %,
all processes of the tool are killed; then the same command runs again. The server knows each request by its content: asked
again are requests of the second run that the first had sent, whether they were answered or still in flight. A tool that isn't
done two minutes after the kill counts as not resumed. Data Designer keeps its answers in groups of 1,000 rows and resumes by
these; without its `resume` it would begin anew.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import _rivals
from tests.benchmarks._rivals import OURS, RIVALS, Run, Skipped, Tool
from tests.benchmarks.measure import Figure, repeated
from tests.loopback import LoopbackProcess

_CALLS, _WORKERS, _KILLS = 2000, 64, 5
_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Resumed:
    """`again` and `paid`: calls of the second run that had been asked, and answered, in the first. None: it didn't end."""

    again: int
    paid: int
    second: Run | None
    third: Run | None


def run(*, quick: bool) -> list[Figure]:
    calls, kills = (_CALLS // 20, 1) if quick else (_CALLS, _KILLS)
    server = LoopbackProcess("--behaviour", "echo", "--latency", "0.1")
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name, server:
        prompts = Path(name) / "prompts.jsonl"
        _rivals.write_prompts(prompts, calls)
        for tool in (OURS,) if quick else (OURS, *RIVALS):
            draw = random.Random(0)
            try:
                resumed = [
                    _resumed(
                        tool, prompts, Path(name) / f"{tool.name}-{number}", server, draw.uniform(0.3, 0.7) * calls
                    )
                    for number in range(kills)
                ]
                figures += _figures(tool, resumed, calls)
            except Skipped as reason:
                if tool is OURS:
                    raise
                print(f"{tool.name} is skipped: {reason}", file=sys.stderr, flush=True)
                figures.append(Figure(f"{tool.name}: asked again", None, "calls", target=f"skipped: {reason}"))
    return figures


def _resumed(tool: Tool, prompts: Path, folder: Path, server: LoopbackProcess, answered: float) -> Resumed:
    command = _rivals.ask(tool, prompts, folder, server, _WORKERS)
    calls = len(prompts.read_text("utf-8").splitlines())
    server.reset()
    with _rivals.running(command, folder) as process:
        deadline = time.monotonic() + _TIMEOUT_S
        while server.stats()["completed"] < answered:
            if process.poll() is not None or time.monotonic() > deadline:
                raise Skipped(f"it answered no {answered:.0f} prompts: {folder / 'log'}")
            time.sleep(0.02)
        _rivals.kill(process)
    while server.stats()["in_flight"]:
        time.sleep(0.05)
    before = _rivals.records(server)
    server.reset()
    try:
        second = _rivals.measured(command, folder, server, calls, _TIMEOUT_S)
    except Skipped as reason:
        print(
            f"{tool.name} was killed after {len(before)} calls and didn't resume: {reason}", file=sys.stderr, flush=True
        )
        return Resumed(*_rivals.repeated_calls(before, _rivals.records(server)), None, None)
    counted = _rivals.repeated_calls(before, _rivals.records(server))
    server.reset()
    return Resumed(*counted, second, _rivals.measured(command, folder, server, calls, _TIMEOUT_S))


def _figures(tool: Tool, resumed: list[Resumed], calls: int) -> list[Figure]:
    ended = [each for each in resumed if each.second and each.third]
    name = tool.name
    target = "fewer than Curator and than distilabel" if tool is OURS else ""
    figures = [
        Figure(f"{name}: resumed to {calls:,} answers", len(ended), f"of {len(resumed)} kills"),
        repeated(f"{name}: asked again after a kill", "calls", [each.again for each in resumed], target),
        repeated(f"{name}: of these, already answered", "calls", [each.paid for each in resumed]),
    ]
    if ended:
        seconds, thirds = ([run.wall for each in ended if (run := getattr(each, n))] for n in ("second", "third"))
        figures += [
            repeated(f"{name}: the run after the kill", "s", seconds),
            repeated(f"{name}: a run with nothing left to ask", "s", thirds),
        ]
    return figures
