"""Task runs: never more than a few thousand, each named after its shards, and no more out at a time than there are workers."""

from __future__ import annotations

from concurrent.futures import Future
from itertools import chain
from typing import Any

import pytest

from flows.curate import each_part, parts


@pytest.mark.parametrize("shards", [1, 20, 1024, 1025, 3_700, 1_000_000])
def test_every_shard_has_one_task_and_there_are_never_many(shards: int) -> None:
    tasks = list(parts(shards))
    assert list(chain.from_iterable(tasks)) == list(range(shards))
    assert len(tasks) <= 1024
    assert shards > 1024 or all(len(task) == 1 for task in tasks)


def test_the_first_failure_is_raised_and_nothing_more_is_submitted() -> None:
    submitted: list[int] = []

    def submit(part: range) -> Any:
        submitted.append(part[0])
        future: Future[int] = Future()
        if part[0] == 1:
            future.set_exception(ValueError("shard 1"))
        return future

    with pytest.raises(ValueError, match="shard 1"):
        each_part(parts(100), submit, at_a_time=2)
    assert submitted == [0, 1]
