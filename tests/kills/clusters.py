"""`python -m tests.kills.clusters --runner dask`: runs under a Prefect server, killed and resumed by the same command.

Each kill falls at a random moment of the run, on its process and all that it started. The first kill must not come before the
flow has begun, and what is published at last is compared, byte for byte, with a run that nobody disturbed, without Prefect.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.config.settings import CurationConfig
from tests.conftest import ROOT, as_arguments
from tests.flows.server import prefect_server
from tests.kills import harness

_SMALL = {"source__limit": 24, "source__shard_rows": 4}


def started(config: CurationConfig, environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """The command line's process, with a process group of its own."""
    command = [sys.executable, "-m", "pipeline", "build", *as_arguments(config), "--prefect", "server"]
    with log.open("ab") as out:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out, start_new_session=True)


def killed(child: subprocess.Popen[bytes], seconds: float, begun: Callable[[], bool]) -> bool:
    """Kill a run and what it started so many seconds after it began its work; whether it was still at it."""
    while child.poll() is None and not begun():
        time.sleep(0.02)
    time.sleep(seconds)
    alive = child.poll() is None
    # Until it is waited for, the leader keeps its group's number.
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    return alive


def run(kills: int, seed: int, folder: Path, tell: Callable[[str], None], *, runner: str) -> dict[str, Any]:
    moments, done, runs, repeats = random.Random(seed), 0, 0, 0
    with harness.server(latency=0.05) as server, prefect_server(folder / "prefect") as (prefect, _):
        make = harness.configuration(server, folder)
        environment = prefect | {"OPENAI_API_KEY": server.key}
        plain = make(folder / "plain", **_SMALL)
        harness.finished(plain)
        expected = harness.published(plain.out)
        while done < kills:
            config = make(folder / f"run-{runs}", run__runner=runner, **_SMALL)
            server.reset()
            log, before, left = folder / f"{runs}.log", done, 3.0
            progress = config.out / "work" / "progress"
            while done < kills and done - before < 5:
                if not killed(started(config, environment, log), moments.uniform(0, left), progress.exists):
                    break
                done, left = done + 1, left * 0.8
            code = started(config, environment, log).wait()
            said = log.read_text(errors="replace")
            assert code == 0 and "Prefect failed" not in said, said[-2000:]
            found = harness.published(config.out)
            different = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
            assert not different and not harness.leftovers(config.out), f"other bytes in {different}"
            stats = server.stats()
            again = int(stats["completed"] - stats["completed_distinct"])
            assert again <= (done - before) * 2 * harness.CONCURRENCY, (
                f"{again} calls repeated in {done - before} kills"
            )
            runs, repeats = runs + 1, repeats + again
            tell(f"{done} kills, {runs} runs finished, {repeats} calls repeated")
    return {"kills": done, "runner": runner, "runs": runs, "repeated_calls": repeats}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.kills.clusters", description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runner", choices=("threads", "dask", "ray"), default="threads")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tell = partial(print, flush=True)
        print(json.dumps(run(arguments.kills, arguments.seed, Path(folder), tell, runner=arguments.runner)))


if __name__ == "__main__":
    main()
