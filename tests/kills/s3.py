"""`python -m tests.kills.s3 --kills 20`: runs into a bucket of a real S3 server process, killed and resumed.

Half of the kills fall at a random moment, half just before or just after the n-th access to the store. What is in the bucket
at last is compared, byte for byte, with the folder of a run on this disk that nobody disturbed.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.config.settings import CurationConfig
from pipeline.storage.remote import RemotePath
from tests import s3
from tests.kills import harness

_SMALL = {"source__limit": 16}
# A reader's files; work/ holds digests of them all.
_READ = ("data/", "rejected/", "manifest.json", "README.md", "report.html")


def at_access(number: int, *, after: bool, act: Callable[[], None]) -> Callable[[], None]:
    """To be called in a child: calls `act` around the n-th access to the store."""

    def install() -> None:
        real, count = RemotePath._do, 0

        def do(self: RemotePath, what: str, work: Callable[[Any, str], Any]) -> Any:
            nonlocal count
            count += 1
            mine = count == number
            if mine and not after:
                act()
            result = real(self, what, work)
            if mine and after:
                act()
            return result

        RemotePath._do = do  # type: ignore[method-assign]

    return install


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def counted(config: CurationConfig) -> int:
    """Run in a child; the number of its accesses to the store."""
    reading, writing = os.pipe()

    def install() -> None:
        real = RemotePath._do

        def do(self: RemotePath, what: str, work: Callable[[Any, str], Any]) -> Any:
            os.write(writing, b".")
            return real(self, what, work)

        RemotePath._do = do  # type: ignore[method-assign]

    code = harness.ended(harness.forked(config, install))
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        count = len(told.read())
    assert code == 0
    return count


def in_bucket(prefix: str) -> harness.Published:
    """What a reader finds below a prefix. By boto3: it starts no thread in this process, which forks."""
    import boto3

    client = boto3.client("s3")
    found = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=s3.BUCKET, Prefix=f"{prefix}/"):
        for item in page.get("Contents", []):
            name = item["Key"].removeprefix(f"{prefix}/")
            if name.startswith(_READ):
                found[name] = client.get_object(Bucket=s3.BUCKET, Key=item["Key"])["Body"].read()
            assert ".tmp-" not in name and name != "work/run.owner", f"{name} was left"
    return found


def on_disk(out: Path) -> harness.Published:
    files = {p.relative_to(out).as_posix(): p for p in out.rglob("*") if p.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name.startswith(_READ)}


def same(found: harness.Published, expected: harness.Published) -> None:
    different = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    assert not different, f"other bytes in {different}"


def run(kills: int, seed: int, folder: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    moments, done, runs, repeats = random.Random(seed), Counter[str](), 0, 0
    os.environ["FIGA_STATE"] = str(folder / "state")
    harness.preload()
    import s3fs

    _ = s3fs.S3FileSystem
    with harness.server(latency=0.05) as server, s3.server() as environment:
        os.environ.update(environment)
        make = harness.configuration(server, folder)
        local = make(folder / "local", **_SMALL)
        harness.finished(local)
        expected = on_disk(local.out)
        start = time.monotonic()
        accesses = counted(make("s3://figa/calm", **_SMALL))
        seconds = time.monotonic() - start
        same(in_bucket("calm"), expected)
        tell(f"undisturbed: {len(expected)} files of the same bytes, {accesses} accesses in {seconds:.1f} s")
        while done.total() < kills:
            config = make(f"s3://figa/run-{runs}", **_SMALL)
            server.reset()
            before, code, left = done.total(), None, 1.0
            while code != 0 and done.total() < kills and done.total() - before < 8:
                left *= 0.85
                if moments.random() < 0.5:
                    kind, code = "moment", harness.killed_after(config, moments.uniform(0.1, left) * seconds)
                else:
                    number, after = moments.randint(1, max(1, int(left * accesses))), moments.random() < 0.5
                    child = harness.forked(config, at_access(number, after=after, act=kill_self))
                    kind, code = "access", harness.ended(child)
                assert code in (0, -signal.SIGKILL), f"a resumed run ended with {code}"
                done[kind] += code != 0
            if code != 0:
                harness.finished(config)
            same(in_bucket(f"run-{runs}"), expected)
            stats = server.stats()
            again = int(stats["completed"] - stats["completed_distinct"])
            assert again <= (done.total() - before) * 2 * harness.CONCURRENCY, f"{again} calls repeated"
            runs, repeats = runs + 1, repeats + again
            tell(f"{done.total()} kills, {runs} runs finished, {repeats} calls repeated")
    return {"kills": done.total(), **done, "runs": runs, "repeated_calls": repeats}


if __name__ == "__main__":
    harness.main("tests.kills.s3", __doc__, 20, run)
