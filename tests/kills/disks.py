"""`python -m tests.kills.disks`: runs whose disk refuses, at every kind of step, by size limit and by a full tmpfs.

Each must end with exit code 1 (or 0 where only tidying up was refused), leave no temporary file, and go on afterwards to the
same bytes. Over a finished data set, what the standing manifest names must be untouched.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import resource
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pipeline.config.settings import CurationConfig
from pipeline.dataset import manifest
from tests.kills import harness

CODES = (errno.ENOSPC, errno.EIO, errno.EACCES)


def refuse(code: int) -> Callable[[str], None]:
    def act(name: str) -> None:
        raise OSError(code, os.strerror(code))

    return act


def limit_files(size: int) -> Callable[[], None]:
    """A write past `size` bytes of a file fails with EFBIG: SQLite's and Arrow's own writes as well."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def check(config: CurationConfig, before: Callable[[], None], outcomes: Counter[str]) -> None:
    named = _named(config.out)
    code = harness.ended(harness.forked(config, before))
    assert code in (0, 1), f"ended with {code}"
    assert not harness.leftovers(config.out), harness.leftovers(config.out)
    standing = manifest.load(config.out)
    assert code == 0 or _named(config.out) == named or (standing and standing["digest"]), "the target was touched"
    outcomes[f"exit {code}"] += 1


def _named(out: Path) -> dict[str, bytes]:
    """What the standing manifest names, as it is on disk. Raises when it isn't what the manifest says."""
    content = manifest.load(out)
    files = [*content["files"], *content["rejected_files"]] if content else []
    for entry in files:
        assert manifest.file_entry(out, out / entry["path"], entry["rows"]) == entry, f"{entry['path']} was touched"
    return {entry["path"]: (out / entry["path"]).read_bytes() for entry in files}


def full_disk(make: Callable[..., CurationConfig], folder: Path, outcomes: Counter[str]) -> Path | None:
    """A run on a tmpfs that is full at several moments; None where the machine lets nobody mount one."""
    place = folder / "small"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32k", "none", place], check=False, capture_output=True
    ).returncode:
        return None
    for kilobytes in (120, 200, 300, 450):
        subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", place], check=True)
        check(make(place / "out"), lambda: None, outcomes)
    subprocess.run(["mount", "-o", "remount,size=64m", place], check=True)
    return place


def run(folder: Path, every: int) -> dict[str, int]:
    outcomes: Counter[str] = Counter()
    harness.preload()
    with harness.server(latency=0) as server:
        make = harness.configuration(server, folder)
        calm = make(folder / "calm")
        steps = harness.count_steps(calm)
        expected = harness.published(calm.out)
        fresh = make(folder / "fresh")
        refusals = [harness.at_step(n, refuse(CODES[n // every % 3])) for n in range(1, steps, every)]
        for before in [*refusals, *map(limit_files, (1000, 5000, 20_000))]:
            shutil.rmtree(fresh.out, ignore_errors=True)
            # The answers are paid already: each refusal meets a run that does all the rest.
            (fresh.out / "work").mkdir(parents=True)
            shutil.copy(calm.out / "work" / "journal.db", fresh.out / "work")
            check(fresh, before, outcomes)
            harness.finished(fresh)
            assert harness.published(fresh.out) == expected
        again = make(folder / "fresh", output__rows_per_file=5)
        for number in range(1, 40, max(1, every // 8)):
            check(again, harness.at_step(number, refuse(CODES[number % 3])), outcomes)
        harness.finished(again)
        _named(again.out)
        place = full_disk(make, folder, outcomes)
        if place:
            try:
                harness.finished(make(place / "out"))
                assert harness.published(place / "out") == expected
            finally:
                subprocess.run(["umount", place], check=True)
        shutil.rmtree(folder / "fresh")
    return {**outcomes, "steps": steps, "full_disk": int(place is not None)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.kills.disks", description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="refuse only each n-th step")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(Path(folder), arguments.every)))


if __name__ == "__main__":
    main()
