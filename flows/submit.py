"""From shards to task runs: how many, what they are called, and how many at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import Any

from prefect.futures import PrefectFuture
from prefect.runtime import task_run

# Of a phase. Sources up to 13 million rows have fewer shards than this; beyond, a task takes several.
_MOST_TASKS = 1024


def parts(shards: int) -> Iterator[range]:
    """Consecutive shards, a task's each: one, or as many as keep a phase at 1,024 tasks."""
    size = max(1, -(-shards // _MOST_TASKS))
    return (range(first, min(first + size, shards)) for first in range(0, shards, size))


def name() -> str:
    """The running task's name: its stages, and the numbers that its shards' files have."""
    stages, shards = task_run.parameters["stages"], task_run.parameters["shards"]
    numbers = f"{shards[0]:05d}" if len(shards) == 1 else f"{shards[0]:05d}-{shards[-1]:05d}"
    return f"{stages[0]} to {stages[-1]} {numbers}"


def each_part(pending: Iterable[range], submit: Callable[[range], PrefectFuture[Any]], *, at_a_time: int) -> None:
    """Submit a task for each part, the next one when one ends, and wait for all. Raises what the first failed one raised.

    No more than `at_a_time` are ever out, however many workers a cluster has: each has a share of the calls for so many.
    """
    ended: SimpleQueue[PrefectFuture[Any]] = SimpleQueue()
    out = 0
    for part in pending:
        if out == at_a_time:
            ended.get().result()
            out -= 1
        submit(part).add_done_callback(ended.put)
        out += 1
    for _ in range(out):
        ended.get().result()
