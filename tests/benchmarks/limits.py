"""How close calls keep to a provider's rate limits, with headers that tell them, with Retry-After alone, and with neither.

Requests are the tighter limit for these texts, or nearly; a few seconds' worth may go at once. With headers that tell the
limit, no call need be refused. Without, only refusals tell: the first wave of workers pays.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

from tests.benchmarks.calls import measure
from tests.benchmarks.measure import Figure
from tests.loopback import LoopbackProcess

_WORKERS, _LIMIT_RPM, _LIMIT_TPM = 64, 600, 300_000


def run(*, quick: bool) -> list[Figure]:
    figures = []
    for hints in ("all", "retry", "none"):
        limits = ("--rpm", str(_LIMIT_RPM), "--tpm", str(_LIMIT_TPM), "--burst", "10", "--hints", hints)
        server = LoopbackProcess("--behaviour", "echo", "--latency", "0.1", *limits)
        with tempfile.TemporaryDirectory() as folder, server:
            measure("ours", server.openai_url, 40 if quick else 600, _WORKERS, Path(folder, "limits.db"))
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
