"""Whole runs in forked children that are killed, or whose disk refuses: what every module of this folder builds on.

The process that forks has all libraries loaded and no thread started, so that a child takes a fraction of a second.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.config.loading import load_config
from pipeline.config.settings import CurationConfig
from tests.conftest import SAMPLE, Silent
from tests.labels.families import byte_level, fast
from tests.loopback import LoopbackProcess

ROWS = 40
CONCURRENCY = 4
# What the commit protocol asks of the system. Path.replace, Path.unlink and FileLock end here too.
STEPS = ("fsync", "replace", "unlink")
Published = dict[str, bytes]


def configuration(server: LoopbackProcess, folder: Path) -> Callable[..., CurationConfig]:
    """Makes the configuration of a run into a folder: forty rows in five shards, two at a time."""
    # With threads of its own, a tokenizer doesn't survive a fork.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    fast(byte_level()).save_pretrained(folder / "tokenizer")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(SAMPLE.read_text("utf-8").splitlines(keepends=True)[:ROWS]), "utf-8")
    os.environ["OPENAI_API_KEY"] = server.key
    common = {
        "source.input": str(rows),
        "policy.model": f"openai/policy@{server.openai_url}",
        "policy.api_key_env": "OPENAI_API_KEY",
        "reviser.model": f"openai/reviser@{server.openai_url}",
        "reviser.api_key_env": "OPENAI_API_KEY",
        "policy.concurrency": CONCURRENCY,
        "reviser.concurrency": CONCURRENCY,
        "labels.tokenizer": str(folder / "tokenizer"),
        "source.shard_rows": 8,
        "output.rows_per_file": 6,
        "filter.min_reward_gain": -100,
    }

    def make(out: Path | str, **changed: Any) -> CurationConfig:
        given = {name.replace("__", "."): value for name, value in changed.items()}
        return load_config(flags={**common, "output.dir": str(out), **given})

    return make


def preload() -> None:
    import aiohttp
    import openai
    import rapidfuzz
    import rich.progress
    import transformers

    import pipeline.curate
    import pipeline.report.page
    import pipeline.rewards.embedded

    _ = (
        aiohttp,
        openai.AsyncOpenAI,
        openai.DefaultAioHttpClient,
        rapidfuzz,
        rich.progress,
        transformers.AutoTokenizer,
        pipeline,
    )


def forked(config: CurationConfig, before: Callable[[], None] = lambda: None) -> int:
    """Start a run in a child; its process id. Exit code 0: done; a CurationError's own; 99 with a traceback: anything else."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        code = _run(config, before)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _run(config: CurationConfig, before: Callable[[], None]) -> int:
    from pipeline.curate import curate, in_threads
    from pipeline.errors import CurationError

    before()
    try:
        curate(config, in_threads, Silent())
    except CurationError as error:
        # A limit on the size of files counts for a redirected output too.
        with suppress(OSError):
            print(f"error: {error}", flush=True)
        return error.exit_code
    return 0


def ended(pid: int) -> int:
    """Wait for a child: its exit code, or the negative number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def finished(config: CurationConfig) -> None:
    code = ended(forked(config))
    assert code == 0, f"a run that nobody disturbed ended with {code}"


def at_step(number: int, act: Callable[[str], None]) -> Callable[[], None]:
    """To be called in a child: calls `act(name)` in place of the n-th of the STEPS, which is then not done."""

    def install() -> None:
        left = number

        def guarded(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def step(*arguments: Any, **named: Any) -> Any:
                nonlocal left
                # What is told to a display is not storage.
                if "progress" not in str(arguments[0]):
                    left -= 1
                    if left == 0:
                        act(name)
                return real(*arguments, **named)

            return step

        for name in STEPS:
            setattr(os, name, guarded(name, getattr(os, name)))

    return install


def kill_self(name: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_after(config: CurationConfig, seconds: float) -> int:
    pid = forked(config)
    time.sleep(seconds)
    # A child that has ended by then is a zombie until it is waited for: the signal hits nobody else.
    os.kill(pid, signal.SIGKILL)
    return ended(pid)


def published(out: Path) -> Published:
    """Everything that a reader gets, by path."""
    paths = [*out.glob("data/*"), *out.glob("rejected/*"), out / "manifest.json", out / "README.md"]
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(paths)}


def leftovers(out: Path) -> list[str]:
    return [str(path) for path in out.rglob(".tmp-*")]


def count_steps(config: CurationConfig) -> int:
    """The STEPS of a whole run, counted in a child."""
    reading, writing = os.pipe()

    def install() -> None:
        at_step(-1, lambda name: None)()
        for name in STEPS:
            real = getattr(os, name)

            def step(*arguments: Any, real: Callable[..., Any] = real, **named: Any) -> Any:
                if "progress" not in str(arguments[0]):
                    os.write(writing, b".")
                return real(*arguments, **named)

            setattr(os, name, step)

    code = ended(forked(config, install))
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        count = len(told.read())
    assert code == 0
    return count


@contextmanager
def server(latency: float) -> Iterator[LoopbackProcess]:
    with LoopbackProcess("--behaviour", "pipeline", "--latency", str(latency)) as running:
        yield running


def main(module: str, about: str | None, kills: int, run: Callable[..., dict[str, Any]]) -> None:
    """The command line of a harness: run(kills, seed, folder, tell), and what it returns as JSON."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument("--kills", type=int, default=kills)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        told = run(arguments.kills, arguments.seed, Path(folder), lambda line: print(line, flush=True))
    print(json.dumps(told))
