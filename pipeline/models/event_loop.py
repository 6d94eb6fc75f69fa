"""One event loop per process, in a thread of its own, on which all calls of language models run.

Stages are synchronous functions; they hand their rows to `each_row` and get results back in order. Shards in other threads
share the loop, and with it the clients, their connections and their limits.
"""

import asyncio
import atexit
import itertools
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import ContextVar
from functools import cache
from typing import Any, TypeVar

from pipeline.errors import RowReject
from pipeline.storage import stopping

Row = TypeVar("Row")
Result = TypeVar("Result")

_lock = threading.Lock()

# The number of the worker that a coroutine belongs to: one row's calls share it.
worker_number: ContextVar[int] = ContextVar("worker_number", default=0)
# Of the row that a coroutine works for, among all rows of the process.
row_number: ContextVar[int] = ContextVar("row_number", default=0)
_rows = itertools.count(1)


def event_loop() -> asyncio.AbstractEventLoop:
    # `cache` alone would let threads that race for the first use create a loop each.
    with _lock:
        return _event_loop()


@cache
def _event_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="model-calls", daemon=True).start()
    return loop


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine on the loop and wait; if the waiting is interrupted, the coroutine is cancelled."""
    future = asyncio.run_coroutine_threadsafe(work, event_loop())
    try:
        with stopping.waking(future.cancel):
            return future.result()
    except BaseException:
        future.cancel()
        raise


def at_exit(close: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Await `close()` on the loop when the process ends; for at most a few seconds, and whatever it raises."""

    def finish() -> None:
        with suppress(Exception):
            asyncio.run_coroutine_threadsafe(close(), event_loop()).result(timeout=3)

    atexit.register(finish)


def cancel_all() -> None:
    """Cancel every call in flight, in whatever thread it is awaited; answers already journalled stay."""

    def cancel() -> None:
        for task in asyncio.all_tasks():
            task.cancel()

    event_loop().call_soon_threadsafe(cancel)


def each_row(
    rows: Sequence[Row],
    work: Callable[[Row], Awaitable[Result]],
    *,
    workers: int,
    done: Callable[[bool], None] = lambda rejected: None,
) -> list[Result | RowReject]:
    """Apply `work` to every row, at most `workers` at a time, no barrier between rows; results in the rows' order.

    A RowReject is that row's result. Any other exception cancels the rest and is raised. `done(rejected)` is called as
    each row ends, on the loop's thread.
    """

    async def pool() -> list[Result | RowReject]:
        results: list[Result | RowReject | None] = [None] * len(rows)
        pending = iter(range(len(rows)))

        async def worker(number: int) -> None:
            worker_number.set(number)
            for index in pending:
                row_number.set(next(_rows))
                try:
                    results[index] = await work(rows[index])
                except RowReject as reject:
                    results[index] = reject
                done(isinstance(results[index], RowReject))

        try:
            async with asyncio.TaskGroup() as group:
                for number in range(min(workers, len(rows))):
                    group.create_task(worker(number))
        except BaseExceptionGroup as errors:
            # The first failure is the cause; the others are its cancellations or its like.
            raise errors.exceptions[0] from None
        return results  # type: ignore[return-value]

    return run(pool())
