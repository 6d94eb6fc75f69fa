"""A batch's result files: read once it has ended, answers first, and what becomes of it when they are gone."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from pipeline.errors import ProviderStopped, RowReject
from pipeline.models.batch.api import BatchApi
from pipeline.models.batch.waiting import WaitingRequests
from pipeline.models.provider_errors import Transient, UselessAnswer

Result = TypeVar("Result")
GONE = (404, 410)


async def present(call: Callable[[], Awaitable[Result]], looks: int, pause_s: float) -> Result | None:
    """Call the batch API about something that it had; None when it is gone, at so many looks."""
    for _ in range(looks):
        try:
            return await call()
        except RowReject as reject:
            if reject.evidence.get("status") not in GONE:
                raise
        await asyncio.sleep(pause_s)
    return None


class ResultFiles:
    """Reads the files of one batch. `found`: whether they hold any of its results."""

    def __init__(self, api: BatchApi, waiting: WaitingRequests, key: str, wanted: set[str]) -> None:
        self._api, self._waiting, self._key, self._wanted = api, waiting, key, wanted
        self._answered: set[str] = set()
        self._refused: dict[str, str] = {}

    @property
    def found(self) -> bool:
        return bool(self._answered or self._refused)

    async def read(self, file: str) -> bool:
        """Keep a file's answers and wake those who wait for them. A refusal is kept back: another line may be an answer."""
        async with aclosing(self._api.results(file, self._wanted)) as groups:
            async for group in groups:
                new: dict[str, str] = {}
                for custom_id, text in group:
                    if not self._is_answer(text):
                        self._refused[custom_id] = text
                    elif custom_id not in self._answered:
                        new.setdefault(custom_id, text)
                self._answered.update(new)
                self._waiting.keep(self._key, list(new.items()))
        return True

    def keep_refusals(self) -> None:
        """When all files are read: keep the refusals of requests without an answer."""
        self._waiting.keep(self._key, [(one, text) for one, text in self._refused.items() if one not in self._answered])

    def _is_answer(self, text: str) -> bool:
        """Whether a result line holds what the model said, be it of use or not."""
        try:
            self._api.read_kept(text, 0)
        except UselessAnswer:
            return True
        except (RowReject, Transient, ProviderStopped):
            return False
        return True
