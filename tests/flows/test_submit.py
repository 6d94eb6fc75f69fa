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


def test_each_part_goes_through_the_stages_and_no_more_than_allowed_are_out() -> None:
    log: list[tuple[int, str]] = []
    out: set[int] = set()

    def submit(part: range, stage: str, after: Any) -> Any:
        assert (stage == "sample") == (after is None) and (after is None or after.result() == part)
        log.append((part[0], stage))
        out.add(part[0])
        assert len(out) <= 2
        if stage == "score":
            out.remove(part[0])
        future: Future[range] = Future()
        future.set_result(part)
        return future

    last = each_part(parts(5), ("sample", "score"), submit, at_a_time=2)
    assert [future.result() for future in last] == [range(n, n + 1) for n in range(5)]
    assert sorted(log) == [(n, stage) for n in range(5) for stage in ("sample", "score")]


def test_the_first_failure_is_raised_and_nothing_more_is_submitted() -> None:
    submitted: list[int] = []

    def submit(part: range, stage: str, after: Any) -> Any:
        submitted.append(part[0])
        future: Future[int] = Future()
        if part[0] == 1:
            future.set_exception(ValueError("shard 1"))
        return future

    with pytest.raises(ValueError, match="shard 1"):
        each_part(parts(100), ("label",), submit, at_a_time=2)
    assert submitted == [0, 1]
