"""What both providers' batch APIs share here: the script of what goes wrong, the batches, and the record of all requests.

    desk = BatchDesk(outcome=lambda request, attempt: "expired" if attempt == 1 else None)
    with LoopbackServer(pipeline, extensions=desk.extensions) as server: ...
    assert desk.sent == Counter(...)

Results are shuffled, always. Nothing is answered before a batch has ended; then each request that is answered is a call in
the server's ledger like any other.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

from aiohttp import web

from tests.loopback.chat import BadRequest, ChatRequest, Completion, number_from
from tests.loopback.engine import Engine

EXPIRED, CANCELLED, MISSING, BROKEN, ODD = "expired", "cancelled", "missing", "broken", "odd"
"""Outcomes of a request: never asked in time; cancelled; without any result; with a line that is no JSON;
an answer of another shape.

A number of a status (`"400"`) is the last kind: an error of that request alone.
"""
Outcome = Callable[[ChatRequest, int], str | None]
"""Of a request and which time it was sent (from 1); None for an answer."""


@dataclass
class Sent:
    """One request of a batch. `error` is set when the provider would refuse it on reading."""

    custom_id: str
    request: ChatRequest | None
    attempt: int
    error: str = ""
    outcome: str | None = None
    completion: Completion | None = None


@dataclass
class Job:
    """One batch on the server. `number` counts from 1."""

    id: str
    number: int
    requests: list[Sent]
    created: float
    fields: dict[str, Any] = field(default_factory=dict)
    looks: int = 0
    ended: bool = False
    cancelling: bool = False
    problems: list[dict[str, Any]] = field(default_factory=list)


class BatchDesk:
    """A server's batches; give `extensions` to `LoopbackServer`.

    A batch ends at its `looks`-th look, once `open` is set. `fails` names the failure of the n-th batch as
    (code, line or None); `lose_answers_to` lists the numbers of the batches whose creation is answered by a reset. While
    `hold` is "before" or "after", a creation waits there: before the batch is made, or before its id is told. Result files
    after the first wait for `second_file`. `message` is the text of planned errors. `room` is how many requests may be out at
    a time; the first `late_files` creations don't find their file; with `doubles` each answer comes after an error for the
    same request.
    """

    def __init__(
        self,
        *,
        outcome: Outcome = lambda request, attempt: None,
        looks: int = 2,
        fails: dict[int, tuple[str, int | None]] | None = None,
        lose_answers_to: Sequence[int] = (),
        message: str = "A planned fault.",
        room: int | None = None,
        late_files: int = 0,
        doubles: bool = False,
    ) -> None:
        self.room = room
        self.late_files = late_files
        self.doubles = doubles
        # "batch", "results": what is gone.
        self.gone: set[str] = set()
        self.refused = 0
        self.message = message
        self.hold: str | None = None
        self.held = 0
        self.outcome = outcome
        self.looks = looks
        self.fails = fails or {}
        self.lose_answers_to = set(lose_answers_to)
        self.open = threading.Event()
        self.open.set()
        self.second_file = threading.Event()
        self.second_file.set()
        self.jobs: list[Job] = []
        self.sent: Counter[str] = Counter()
        self.cancelled: list[str] = []
        self.reads = 0
        self.files: dict[str, dict[str, Any]] = {}
        self.deleted: list[str] = []

    @property
    def extensions(self) -> list[Callable[[web.Application, Engine], None]]:
        from tests.loopback import anthropic_batches, openai_batches

        return [partial(openai_batches.extend, self), partial(anthropic_batches.extend, self)]

    @property
    def sizes(self) -> list[int]:
        """How many requests each batch had."""
        return [len(job.requests) for job in self.jobs]

    async def held_up(self, where: str) -> None:
        """Wait as long as creations are held there."""
        self.held += self.hold == where
        while self.hold == where:
            await asyncio.sleep(0.02)

    async def next_file(self) -> None:
        self.reads += 1
        while self.reads > 1 and not self.second_file.is_set():
            await asyncio.sleep(0.02)

    def take(self, wire: ModuleType, lines: Sequence[tuple[str, Any, str]], **fields: Any) -> Job:
        """A new batch of (custom id, body, error) lines."""
        number = len(self.jobs) + 1
        requests = []
        for custom_id, body, error in lines:
            self.sent[custom_id] += 1
            requests.append(_received(wire, custom_id, body, error, self.sent[custom_id]))
        prefix = "batch_" if wire.NAME == "openai" else "msgbatch_"
        job = Job(f"{prefix}{number:08d}", number, requests, time.time(), fields)
        self.jobs.append(job)
        return job

    def is_full(self, size: int) -> bool:
        out = sum(len(job.requests) for job in self.jobs if not job.ended)
        full = self.room is not None and out + size > self.room
        self.refused += full
        return full

    def job(self, job_id: str) -> Job | None:
        if "batch" in self.gone:
            return None
        return next((job for job in self.jobs if job.id == job_id), None)

    def look(self, engine: Engine, wire: ModuleType, job: Job) -> None:
        """Move a batch on, as somebody looks at it."""
        job.looks += 1
        if job.ended or (not job.cancelling and (job.looks < self.looks or not self.open.is_set())):
            return
        job.ended = True
        if job.number in self.fails:
            code, line = self.fails[job.number]
            job.problems.append({"code": code, "message": f"planned: {code}", "param": None, "line": line})
            return
        for sent in job.requests:
            self._finish(engine, wire, sent, CANCELLED if job.cancelling else None)

    def _finish(self, engine: Engine, wire: ModuleType, sent: Sent, outcome: str | None) -> None:
        if sent.request is None:
            sent.outcome = "400"
            return
        sent.outcome = outcome or self.outcome(sent.request, sent.attempt)
        if sent.outcome is not None:
            sent.error = self.message
            return
        try:
            sent.completion = engine.complete(sent.request)
        except BadRequest as refused:
            sent.outcome, sent.error = str(refused.status), str(refused)
            return
        call = engine.ledger.arrive(wire.NAME)
        engine.ledger.identify(call, sent.request)
        call.status, call.usage, call.completed = 200, sent.completion.usage, True
        engine.ledger.leave(call)

    def shuffled(self, job: Job) -> list[Sent]:
        return sorted(job.requests, key=lambda sent: number_from(job.id, sent.custom_id))


def _received(wire: ModuleType, custom_id: str, body: Any, error: str, attempt: int) -> Sent:
    if error:
        return Sent(custom_id, None, attempt, error)
    try:
        return Sent(custom_id, wire.parse(body, None), attempt)
    except BadRequest as refused:
        return Sent(custom_id, None, attempt, str(refused))


def page(items: list[dict[str, Any]], after: str | None, limit: int) -> dict[str, Any]:
    """One page of a list, as both providers cut it."""
    start = next((index + 1 for index, item in enumerate(items) if item["id"] == after), 0)
    data = items[start : start + limit]
    return {
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": start + limit < len(items),
    }
