"""How much of ours a provider takes at a time, learned from its refusals: accounts have a limit on tokens that wait.

After a batch is refused for lack of room, batches are sent one by one, each when the one before is accepted; when it was the
only one of ours, they are half as large. Only the sender waits for room; batches that are followed never wait for each other.
"""

import asyncio
from collections.abc import Collection
from typing import Any


class Room:
    """most_requests: per batch, at most."""

    def __init__(self, most_requests: int, pause_s: float) -> None:
        self.most_requests = most_requests
        self.refused_in_a_row = 0
        self.is_tight = False
        self._wanted = False
        self._pause_s = pause_s
        self._accepted: dict[str, asyncio.Future[bool]] = {}

    def sent(self, key: str) -> None:
        self._accepted[key] = asyncio.get_running_loop().create_future()

    async def accepted(self, key: str) -> bool:
        """Wait until the provider has accepted a batch, or refused it."""
        return await self._accepted[key]

    def accepts(self, key: str) -> None:
        self.refused_in_a_row = 0
        self._decide(key, True)

    def refuses(self, key: str, size: int, *, lacks_room: bool, alone: bool) -> None:
        """alone: nothing else of ours is there, so that the batch itself may be too large."""
        # Of several batches of one size, the first counts for all.
        self.refused_in_a_row += size <= self.most_requests
        if lacks_room:
            if alone:
                self.most_requests = min(self.most_requests, max(1, size // 2))
            self.is_tight = self._wanted = True
        self._decide(key, False)

    def _decide(self, key: str, accepted: bool) -> None:
        future = self._accepted.get(key)
        if future and not future.done():
            future.set_result(accepted)

    async def wait(self, others: Collection[asyncio.Task[Any]], *, now: bool = False) -> None:
        """After a refusal: wait until one of our other batches has ended or, where there is none, a while."""
        if not self._wanted and not now:
            return
        self._wanted = False
        if others:
            await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(self._pause_s)
