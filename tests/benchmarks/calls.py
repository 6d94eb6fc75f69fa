"""Model calls against a bare loop over the same SDK, reruns from the journal, and how close a rate limit is kept."""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import Figure, child, repeated
from tests.loopback import KEY, LoopbackProcess

_CALLS, _WORKERS, _LATENCY_S = 2000, 64, 0.1
_ANSWERS = 100_000
_LIMIT_RPM, _LIMIT_TPM = 600, 300_000
_REPEATS = 3


def run(*, quick: bool) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [*_speed(folder, quick), *_journal(folder, quick), *_limits(folder, quick)]


def _measure(*arguments: object) -> dict[str, Any]:
    """A measurement in a process of its own: `_calls` says which there are."""
    words = map(str, arguments)
    told: dict[str, Any] = json.loads(child("tests.benchmarks._calls", *words, OPENAI_API_KEY=KEY).stdout)
    return told


def _speed(folder: Path, quick: bool) -> list[Figure]:
    calls = _CALLS // 10 if quick else _CALLS
    ideal = calls * _LATENCY_S / _WORKERS
    walls, cpus, ideals, reruns = [], [], [], []
    with LoopbackProcess("--behaviour", "echo", "--latency", str(_LATENCY_S)) as server:
        for number in range(1 if quick else _REPEATS):
            file = folder / f"speed-{number}.db"
            bare = _measure("bare", server.openai_url, calls, _WORKERS)
            ours = _measure("ours", server.openai_url, calls, _WORKERS, file)
            walls.append(ours["wall"] / bare["wall"])
            cpus.append(ours["cpu"] / bare["cpu"])
            ideals.append(ours["wall"] / ideal)
            again = _measure("ours", server.openai_url, calls, _WORKERS, file)
            if again["calls"] or again["sdk"]:
                raise RuntimeError(f"a rerun made {again['calls']} calls, SDK imported: {again['sdk']}")
            reruns.append(again["opened"] + again["wall"])
    return [
        repeated("wall / bare loop over the SDK", "×", walls, "at most 1.15"),
        repeated("CPU / bare loop over the SDK", "×", cpus, "at most 1.3"),
        repeated("wall / calls × latency ÷ workers", "×", ideals, "at most 1.6"),
        repeated("rerun from the journal: 0 calls, no SDK", "s", reruns, "at most 0.3"),
    ]


def _journal(folder: Path, quick: bool) -> list[Figure]:
    answers = _ANSWERS // 10 if quick else _ANSWERS
    file = folder / "large.db"
    filled = _measure("fill", file, answers)
    opened = [_measure("reopen", file) for _ in range(_REPEATS)]
    return [
        Figure(f"{answers:,} answers written, commits shared", answers / filled["wall"], "answers/s"),
        repeated("the same reopened and checked", "s", [told["wall"] for told in opened], "below 2"),
        repeated("peak memory of that", "MB", [told["peak_mb"] for told in opened], "below 300"),
    ]


def _limits(folder: Path, quick: bool) -> list[Figure]:
    """Requests are the tighter limit for these texts, or nearly; a few seconds' worth may go at once.

    With headers that tell the limit, no call need be refused. Without, only refusals tell: the first wave of workers pays.
    """
    figures = []
    for hints in ("all", "retry", "none"):
        limits = ("--rpm", str(_LIMIT_RPM), "--tpm", str(_LIMIT_TPM), "--burst", "10", "--hints", hints)
        with LoopbackProcess("--behaviour", "echo", "--latency", "0.1", *limits) as server:
            _measure("ours", server.openai_url, 150 if quick else 600, _WORKERS, folder / f"limits-{hints}.db")
            records = server.stats(records=True)["records"]
        times = sorted(record["time"] for record in records if record["completed"])
        # The first third pays for not knowing the limit, and spends what the server had saved up.
        settled = times[len(times) // 3 :]
        rate = 60 * (len(settled) - 1) / (settled[-1] - settled[0])
        late = [record for record in records if record["time"] >= settled[0]]
        refused, later = (100 * sum(r["limited"] for r in some) / len(some) for some in (records, late))
        pause = max(second - first for first, second in itertools.pairwise(times))
        figures += [
            Figure(f"headers {hints}: settled rate / limit", rate / _LIMIT_RPM, "×", target="0.9 to 1"),
            Figure(f"headers {hints}: refused", refused, "%", target="below 2" if hints == "all" else ""),
            Figure(f"headers {hints}: refused once settled", later, "%", target="below 2"),
            Figure(f"headers {hints}: longest pause between answers", pause, "s"),
        ]
    return figures
