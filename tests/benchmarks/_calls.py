"""One measurement of `calls` in a process of its own: `python -m tests.benchmarks._calls WHAT …`; prints one JSON object."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.config.settings import PolicySettings
from pipeline.models import factory
from pipeline.models.cost import Budget
from pipeline.models.event_loop import each_row, run
from pipeline.models.journal import Answer, Journal
from pipeline.models.request import ChatRequest
from pipeline.schema import digest
from tests.benchmarks.measure import peak_mb
from tests.loopback import KEY

MAX_TOKENS = 200


def messages(index: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Question {index}: {'why is the sky blue, and what follows? ' * 20}"}]


def measured(work: Callable[[], object]) -> dict[str, Any]:
    """Wall and CPU seconds of `work`, without what came before it."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def bare(url: str, calls: int, workers: int) -> dict[str, Any]:
    """The official SDK in a loop of workers and nothing else: no retries, no journal, no limits."""
    import openai

    async def ask_all() -> None:
        pending = iter(range(calls))

        async def worker() -> None:
            for index in pending:
                await client.chat.completions.create(
                    model="m",
                    messages=messages(index),  # type: ignore[arg-type]
                    max_tokens=MAX_TOKENS,
                    temperature=0.5,
                    seed=index,
                )

        await asyncio.gather(*(worker() for _ in range(workers)))

    client = openai.AsyncOpenAI(
        base_url=url, api_key=KEY, max_retries=0, timeout=60, http_client=openai.DefaultAioHttpClient()
    )
    # On the same loop in the same thread as the other; the first call loads the rest of the SDK.
    run(client.chat.completions.create(model="m", messages=messages(-1), max_tokens=MAX_TOKENS))  # type: ignore[arg-type]
    return measured(lambda: run(ask_all()))


def ours(url: str, calls: int, workers: int, path: str) -> dict[str, Any]:
    """The same calls through `ChatModel`; those that the journal has are not made."""
    started = time.perf_counter()
    journal = Journal(Path(path))
    settings = PolicySettings(model=f"openai/m@{url}", api_key_env="OPENAI_API_KEY", concurrency=workers)
    model = factory.chat_model(settings, journal=journal, budget=Budget(None, 0.0), local_file=Path)
    opened = time.perf_counter() - started

    def ask(index: int) -> Any:
        return model.ask("sample", ChatRequest(messages(index), MAX_TOKENS, {"temperature": 0.5, "seed": index}))

    if not journal.calls():
        run(ask(-1))
    told = measured(lambda: each_row(range(calls), ask, workers=workers))
    sdk = "openai" in sys.modules
    return told | {"calls": model.calls, "opened": opened, "sdk": sdk}


def fill(path: str, answers: int) -> dict[str, Any]:
    journal = Journal(Path(path))

    async def keep() -> None:
        text = "A plausible answer of some four hundred characters. " * 8
        for first in range(0, answers, 1000):
            rows = (
                journal.keep(digest(index), "sample", "openai/m", Answer(text, "stop", MAX_TOKENS, 200, 100), 0.001)
                for index in range(first, min(first + 1000, answers))
            )
            await asyncio.gather(*rows)

    told = measured(lambda: run(keep()))
    journal.close()
    return told


def reopen(path: str) -> dict[str, Any]:
    told: dict[str, Any] = measured(lambda: Journal(Path(path)).spent())
    return told | {"peak_mb": peak_mb()}


def main() -> None:
    what, *arguments = sys.argv[1:]
    values = [int(argument) if argument.isdigit() else argument for argument in arguments]
    work: dict[str, Callable[..., dict[str, Any]]] = {"bare": bare, "ours": ours, "fill": fill, "reopen": reopen}
    print(json.dumps(work[what](*values)))


if __name__ == "__main__":
    main()
