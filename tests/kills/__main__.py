"""`python -m tests.kills --kills 300`: kill runs at random moments and at chosen steps, resume them, compare every byte.

Half of the kills fall at a random moment, half at the n-th fsync, rename or removal of a file. A run that survives is
compared with one that nobody disturbed, and a new one is begun, every third time as a republication over a finished data set.
Ends with exit code 1 and a message when bytes differ, a row is lost, or more calls were repeated than were in flight.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.config.settings import CurationConfig
from tests.kills import harness
from tests.loopback import LoopbackProcess


class Undisturbed:
    """The bytes of a run and of its republication, made without kills, with what they take."""

    def __init__(self, make: Callable[..., CurationConfig], folder: Path) -> None:
        self.out = folder / "undisturbed"
        start = time.monotonic()
        harness.finished(make(self.out))
        self.seconds = time.monotonic() - start
        self.first = harness.published(self.out)
        self.steps = harness.count_steps(make(folder / "counted"))
        again = folder / "again"
        shutil.copytree(self.out, again)
        harness.finished(make(again, filter__max_distance=0.7))
        self.second = harness.published(again)


def one_cycle(
    config: CurationConfig, expected: harness.Published, reference: Undisturbed, most: int, moments: random.Random
) -> Counter[str]:
    """Run, kill, resume until it is done; the kills by kind."""
    kills: Counter[str] = Counter()
    code, left = None, 1.0
    while code != 0 and kills.total() < most:
        # The rest of a resumed run is shorter than the whole: kills must not all come too late for it.
        left *= 0.8
        if moments.random() < 0.5:
            kind, code = "moment", harness.killed_after(config, moments.uniform(0.1, left) * reference.seconds)
        else:
            step = moments.randint(1, max(1, int(left * reference.steps)))
            kind, code = "step", harness.ended(harness.forked(config, harness.at_step(step, harness.kill_self)))
        assert code in (0, -signal.SIGKILL), f"a resumed run ended with {code}"
        kills[kind] += code != 0
    if code != 0:
        harness.finished(config)
    found = harness.published(config.out)
    different = [name for name in {*found, *expected} if found.get(name) != expected.get(name)]
    assert not different, f"after {dict(kills)} kills other bytes in {different}"
    assert not harness.leftovers(config.out)
    return kills


def repeated(server: LoopbackProcess) -> int:
    """Calls that the server did more than once."""
    stats = server.stats()
    return int(stats["completed"] - stats["completed_distinct"])


def run(kills: int, seed: int, folder: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    moments, done, cycles, repeats = random.Random(seed), Counter[str](), 0, 0
    harness.preload()
    with harness.server(latency=0.01) as server:
        make = harness.configuration(server, folder)
        reference = Undisturbed(make, folder)
        while done.total() < kills:
            out = folder / f"cycle-{cycles}"
            republished = cycles % 3 == 2
            if republished:
                shutil.copytree(reference.out, out)
            config = make(out, **({"filter__max_distance": 0.7} if republished else {}))
            server.reset()
            most = min(10, kills - done.total())
            expected = reference.second if republished else reference.first
            killed = one_cycle(config, expected, reference, most, moments)
            again = repeated(server)
            assert again <= killed.total() * 2 * harness.CONCURRENCY, (
                f"{again} calls repeated in {killed.total()} kills"
            )
            done, cycles, repeats = done + killed, cycles + 1, repeats + again
            shutil.rmtree(out)
            tell(f"{done.total()} kills, {cycles} runs finished, {repeats} calls repeated")
    return {"kills": done.total(), **done, "runs": cycles, "repeated_calls": repeats}


if __name__ == "__main__":
    harness.main("tests.kills", __doc__, 300, run)
