"""The shared event loop: order, rejects, failures, interruption."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time

import pytest

from pipeline.errors import RowReject
from pipeline.models import event_loop
from pipeline.models.event_loop import each_row


def test_results_come_in_the_order_of_the_rows() -> None:
    async def work(row: int) -> int:
        await asyncio.sleep((20 - row) / 500)
        return row * row

    assert each_row(list(range(20)), work, workers=20) == [row * row for row in range(20)]
    assert each_row([], work, workers=4) == []


def test_a_reject_is_that_rows_result() -> None:
    told: list[bool] = []

    async def work(row: int) -> int:
        if row % 3 == 0:
            raise RowReject("third", row=row)
        return row

    results = each_row(list(range(7)), work, workers=2, done=told.append)
    assert [r.evidence["row"] if isinstance(r, RowReject) else -r for r in results] == [0, -1, -2, 3, -4, -5, 6]
    assert sorted(told) == [False] * 4 + [True] * 3


def test_any_other_exception_cancels_the_rest_and_surfaces() -> None:
    started: list[int] = []
    cancelled: list[int] = []

    async def work(row: int) -> None:
        started.append(row)
        if row == 3:
            raise OSError("disk gone")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(row)
            raise

    begin = time.monotonic()
    with pytest.raises(OSError, match="disk gone"):
        each_row(list(range(100)), work, workers=4)
    assert time.monotonic() - begin < 5
    assert started == [0, 1, 2, 3]
    assert sorted(cancelled) == [0, 1, 2]


def test_at_most_so_many_rows_at_a_time() -> None:
    now = peak = 0

    async def work(row: int) -> None:
        nonlocal now, peak
        now += 1
        peak = max(peak, now)
        await asyncio.sleep(0.005)
        now -= 1

    each_row(list(range(30)), work, workers=5)
    assert peak == 5


def test_a_slow_row_holds_up_no_other() -> None:
    """Row 0 waits for the last row: a pool that works in batches would wait for ever."""
    last_began = asyncio.Event()

    async def work(row: int) -> int:
        if row == 0:
            await asyncio.wait_for(last_began.wait(), 10)
        elif row == 49:
            last_began.set()
        return row

    assert each_row(list(range(50)), work, workers=2) == list(range(50))


def test_threads_share_one_loop() -> None:
    async def thread_of_the_loop(row: int) -> int:
        return threading.get_ident()

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(each_row, [1, 2], thread_of_the_loop, workers=2) for _ in range(3)]
        idents = {ident for future in futures for ident in future.result(10)}
    assert len(idents) == 1
    assert idents != {threading.get_ident()}


def test_cancel_all_ends_a_waiting_call_in_another_thread() -> None:
    waiting = threading.Semaphore(0)
    ended: list[BaseException] = []

    async def work(row: int) -> None:
        waiting.release()
        await asyncio.sleep(60)

    def wait() -> None:
        try:
            each_row([1, 2, 3], work, workers=3)
        except BaseException as error:
            ended.append(error)

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(6):
        assert waiting.acquire(timeout=10)
    event_loop.cancel_all()
    begin = time.monotonic()
    for thread in threads:
        thread.join(2)
    assert time.monotonic() - begin < 2
    assert [type(error) for error in ended] == [concurrent.futures.CancelledError] * 2


def test_the_loop_serves_on_after_cancel_all() -> None:
    async def work(row: int) -> int:
        return row

    event_loop.cancel_all()
    assert event_loop.run(asyncio.sleep(0, "still here")) == "still here"
    assert each_row([1, 2, 3], work, workers=2) == [1, 2, 3]
