"""Anthropic's Message Batches: create, look, list, results, cancel."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from tests.loopback import anthropic_wire
from tests.loopback.app import error_response
from tests.loopback.batches import BROKEN, CANCELLED, EXPIRED, MISSING, ODD, BatchDesk, Job, Sent, page
from tests.loopback.engine import Engine

_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def extend(desk: BatchDesk, app: web.Application, engine: Engine) -> None:
    api = _Api(desk, engine)
    for method, path, handler in (
        ("POST", "/v1/messages/batches", api.create),
        ("GET", "/v1/messages/batches", api.list_batches),
        ("GET", "/v1/messages/batches/{id}", api.look),
        ("GET", "/v1/messages/batches/{id}/results", api.results),
        ("POST", "/v1/messages/batches/{id}/cancel", api.cancel),
    ):
        app.router.add_route(method, path, api.checked(handler))


class _Api:
    def __init__(self, desk: BatchDesk, engine: Engine) -> None:
        self.desk = desk
        self.engine = engine

    def checked(
        self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def check(http: web.Request) -> web.StreamResponse:
            if not self.engine.authorised(anthropic_wire, http):
                return error_response(anthropic_wire, 401, "invalid x-api-key")
            return await handler(http)

        return check

    async def create(self, http: web.Request) -> web.StreamResponse:
        requests = (await http.json()).get("requests")
        ids = [request.get("custom_id") for request in requests or []]
        if not ids or len(set(ids)) < len(ids) or not all(_CUSTOM_ID.fullmatch(one) for one in ids):
            return error_response(anthropic_wire, 400, "requests: custom_id must be unique and match its pattern")
        if self.desk.is_full(len(ids)):
            return error_response(anthropic_wire, 429, "Too many requests are waiting in batches.")
        await self.desk.held_up("before")
        if http.transport is None or http.transport.is_closing():
            # Whoever asked has been killed while it was held up.
            return web.Response()
        job = self.desk.take(anthropic_wire, [(one["custom_id"], one["params"], "") for one in requests])
        await self.desk.held_up("after")
        if job.number in self.desk.lose_answers_to:
            if http.transport:
                http.transport.abort()
            return web.Response()
        return web.json_response(self._shown(job, http))

    async def look(self, http: web.Request) -> web.StreamResponse:
        job = self.desk.job(http.match_info["id"])
        if job is None:
            return error_response(anthropic_wire, 404, "Not found")
        # The SDK looks once more before it reads results.
        if not job.ended:
            self.desk.look(self.engine, anthropic_wire, job)
        return web.json_response(self._shown(job, http))

    async def list_batches(self, http: web.Request) -> web.StreamResponse:
        jobs = [self._shown(job, http) for job in reversed(self.desk.jobs) if job.id.startswith("msgbatch_")]
        return web.json_response(page(jobs, http.query.get("after_id"), int(http.query.get("limit", 20))))

    async def results(self, http: web.Request) -> web.StreamResponse:
        job = self.desk.job(http.match_info["id"])
        if job is None or not job.ended or "results" in self.desk.gone:
            return error_response(anthropic_wire, 404, "No results yet")
        await self.desk.next_file()
        lines = []
        for sent in self.desk.shuffled(job):
            if sent.outcome == BROKEN:
                lines.append(f'{{"custom_id": "{sent.custom_id}", "resu')
            elif sent.outcome != MISSING:
                shown = [sent]
                if self.desk.doubles and sent.completion:
                    shown = [replace(sent, completion=None, outcome="500", error="Twice."), sent]
                listed = ({"custom_id": one.custom_id, "result": _result(one)} for one in shown)
                lines += [json.dumps(one, ensure_ascii=False) for one in listed]
        body = "".join(line + "\n" for line in lines).encode("utf-8", "backslashreplace")
        return web.Response(body=body, content_type="application/x-jsonl")

    async def cancel(self, http: web.Request) -> web.StreamResponse:
        job = self.desk.job(http.match_info["id"])
        if job is None:
            return error_response(anthropic_wire, 404, "Not found")
        job.cancelling = True
        self.desk.cancelled.append(job.id)
        return web.json_response(self._shown(job, http))

    def _shown(self, job: Job, http: web.Request) -> dict[str, Any]:
        created = datetime.fromtimestamp(job.created, UTC).isoformat()
        return {
            "id": job.id,
            "type": "message_batch",
            "processing_status": "ended" if job.ended else ("canceling" if job.cancelling else "in_progress"),
            "request_counts": _counts(job),
            "created_at": created,
            "expires_at": created,
            "ended_at": created if job.ended else None,
            "archived_at": None,
            "cancel_initiated_at": created if job.cancelling else None,
            "results_url": f"{http.url.origin()}/v1/messages/batches/{job.id}/results" if job.ended else None,
        }


def _counts(job: Job) -> dict[str, int]:
    """All zero but `processing` until the end, as the real API counts."""
    succeeded = sum(sent.completion is not None for sent in job.requests)
    canceled = sum(sent.outcome == CANCELLED for sent in job.requests)
    expired = sum(sent.outcome == EXPIRED for sent in job.requests)
    ended = len(job.requests) if job.ended else 0
    return {
        "processing": len(job.requests) - ended,
        "succeeded": succeeded,
        "errored": max(0, ended - succeeded - canceled - expired),
        "canceled": canceled,
        "expired": expired,
    }


def _result(sent: Sent) -> dict[str, Any]:
    if sent.completion and sent.request:
        return {
            "type": "succeeded",
            "message": anthropic_wire.answer(sent.request, sent.completion, sent.custom_id[:8]),
        }
    if sent.outcome == ODD:
        return {"type": "succeeded", "message": {"content": [None]}}
    if sent.outcome in (EXPIRED, CANCELLED):
        return {"type": "expired" if sent.outcome == EXPIRED else "canceled"}
    error = anthropic_wire.error(int(sent.outcome or 500), sent.error)
    return {"type": "errored", "error": error}
