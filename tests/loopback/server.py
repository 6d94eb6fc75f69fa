"""The server in a thread of this process, or in a process of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.loopback.app import Extension, make_app
from tests.loopback.behaviours import echo
from tests.loopback.chat import Behaviour
from tests.loopback.dialects import Dialect
from tests.loopback.engine import Engine, Latency
from tests.loopback.faults import FaultPlan
from tests.loopback.ledger import Call
from tests.loopback.limits import RateLimiter

KEY = "sk-loopback"
_BACKLOG = 4096


async def start(
    engine: Engine, host: str, port: int, extensions: Iterable[Extension] = ()
) -> tuple[web.AppRunner, int]:
    """Listen; gives the runner, to be cleaned up, and the port that was bound (asked for with 0)."""
    # Calls that hang on purpose must not hold up the end of a test.
    runner = web.AppRunner(make_app(engine, extensions), access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, host, port, backlog=_BACKLOG).start()
    return runner, runner.addresses[0][1]


class LoopbackServer:
    """Runs from `with` to its end, in a thread.

    `key=None` lets any key in. `rpm` and `tpm` are limits a minute (see `limits.py` for `burst_seconds`); `charge` says
    whether a call costs its actual tokens or its prompt and whole `max_tokens`; `hints`, which headers tell of the limits
    (all, those of a refusal alone: retry, none). `latency` is seconds, or a function of
    the request. `models`, when given, are the only ones known. `dialect` refuses what a
    certain provider refuses (`dialects.py`).
    """

    def __init__(
        self,
        behaviour: Behaviour = echo,
        *,
        faults: FaultPlan | None = None,
        latency: Latency = 0.0,
        key: str | None = KEY,
        rpm: int | None = None,
        tpm: int | None = None,
        burst_seconds: float = 60.0,
        charge: str = "actual",
        hints: str = "all",
        cached_share: float = 0.0,
        models: Sequence[str] | None = None,
        dialect: Dialect | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        extensions: Iterable[Extension] = (),
    ) -> None:
        self.engine = Engine(
            behaviour,
            faults=faults,
            latency=latency,
            key=key,
            limiter=RateLimiter(rpm, tpm, burst_seconds=burst_seconds) if rpm or tpm else None,
            charge=charge,
            hints=hints,
            cached_share=cached_share,
            models=models,
            dialect=dialect,
        )
        self.key = key or "any"
        self._host, self._port, self._extensions = host, port, tuple(extensions)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="loopback", daemon=True)
        self._ready = threading.Event()
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            runner, self._port = self._loop.run_until_complete(
                start(self.engine, self._host, self._port, self._extensions)
            )
        except BaseException as error:
            # Raised in the thread that waits for the server.
            self._error = error
            self._loop.close()
            return
        finally:
            self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}"

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def anthropic_url(self) -> str:
        """Without /v1: Anthropic's SDK adds it."""
        return self.url

    @property
    def calls(self) -> list[Call]:
        return self.engine.ledger.calls

    @property
    def completed(self) -> int:
        # The caller may have an answer before the server has noted that it went out.
        if self._loop.is_running():
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop).result(10)
        return sum(call.completed for call in self.calls)

    @property
    def in_flight_peak(self) -> int:
        return self.engine.ledger.in_flight_peak

    def stats(self) -> dict[str, Any]:
        return self.engine.ledger.stats()

    def reset(self) -> None:
        self.engine.ledger.reset()


class LoopbackProcess:
    """The same in a process of its own, for benchmarks and for tests that must not share a core's interpreter lock.

    Takes the command line's arguments: `LoopbackProcess("--latency", "0.1", "--behaviour", "policy")`.
    """

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self.key = KEY

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.loopback", "--port", "0", "--json", *self._arguments]
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the loopback server didn't start: {' '.join(command)}")
        ready = json.loads(line)
        self.url, self.openai_url, self.anthropic_url = ready["url"], ready["openai"], ready["anthropic"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def stats(self, *, records: bool = False) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/_stats?records={int(records)}") as answer:
            return json.load(answer)

    def reset(self) -> None:
        urllib.request.urlopen(f"{self.url}/_reset", data=b"").close()
