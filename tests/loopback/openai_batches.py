"""OpenAI's files and batches: upload, content, delete; create, look, list, cancel."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from aiohttp import web

from tests.loopback import openai_wire
from tests.loopback.app import error_response
from tests.loopback.batches import BROKEN, CANCELLED, EXPIRED, MISSING, ODD, BatchDesk, Job, Sent, page
from tests.loopback.engine import Engine

_ENDPOINT = "/v1/chat/completions"
_JSONL = "application/octet-stream"
_NEVER_ASKED = {
    EXPIRED: ("batch_expired", "This request could not be executed before the completion window expired."),
    CANCELLED: ("batch_cancelled", "This request was cancelled."),
}


def extend(desk: BatchDesk, app: web.Application, engine: Engine) -> None:
    api = _Api(desk, engine)
    for method, path, handler in (
        ("POST", "/v1/files", api.upload),
        ("GET", "/v1/files", api.list_files),
        ("GET", "/v1/files/{id}/content", api.content),
        ("DELETE", "/v1/files/{id}", api.delete),
        ("POST", "/v1/batches", api.create),
        ("GET", "/v1/batches", api.list_batches),
        ("GET", "/v1/batches/{id}", api.look),
        ("POST", "/v1/batches/{id}/cancel", api.cancel),
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
            if not self.engine.authorised(openai_wire, http):
                key = openai_wire.key_of(http.headers)
                # The real API repeats most of the key.
                return error_response(openai_wire, 401, f"Incorrect API key provided: {key}.")
            return await handler(http)

        return check

    # -- files --------------------------------------------------------------------------------------------------------

    async def upload(self, http: web.Request) -> web.StreamResponse:
        purpose, name, content = "", "", b""
        async for part in await http.multipart():
            if part.name == "purpose":
                purpose = await part.text()
            elif part.name == "file":
                name, content = part.filename or "", bytes(await part.read())
        if purpose != "batch" or not name.endswith(".jsonl"):
            return error_response(openai_wire, 400, f"Invalid file {name!r} for purpose {purpose!r}.")
        return web.json_response(self._store(name, content, purpose))

    def _store(self, name: str, content: bytes, purpose: str) -> dict[str, Any]:
        file = {
            "id": f"file-{len(self.desk.files) + 1:08d}",
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": name,
            "purpose": purpose,
            "status": "processed",
        }
        self.desk.files[file["id"]] = {"file": file, "content": content}
        return file

    def _present(self, file_id: str) -> bool:
        return file_id in self.desk.files and file_id not in self.desk.deleted

    async def list_files(self, http: web.Request) -> web.StreamResponse:
        files = [
            entry["file"]
            for file_id, entry in reversed(self.desk.files.items())
            if self._present(file_id) and http.query.get("purpose") in (None, entry["file"]["purpose"])
        ]
        return web.json_response({"object": "list", **page(files, http.query.get("after"), _limit(http))})

    async def content(self, http: web.Request) -> web.StreamResponse:
        file_id = http.match_info["id"]
        if not self._present(file_id) or "results" in self.desk.gone:
            return error_response(openai_wire, 404, f"No such File object: {file_id}")
        await self.desk.next_file()
        return web.Response(body=self.desk.files[file_id]["content"], content_type=_JSONL)

    async def delete(self, http: web.Request) -> web.StreamResponse:
        file_id = http.match_info["id"]
        if not self._present(file_id):
            return error_response(openai_wire, 404, f"No such File object: {file_id}")
        self.desk.deleted.append(file_id)
        return web.json_response({"id": file_id, "object": "file", "deleted": True})

    # -- batches ------------------------------------------------------------------------------------------------------

    async def create(self, http: web.Request) -> web.StreamResponse:
        body = await http.json()
        file_id = body.get("input_file_id")
        if body.get("endpoint") != _ENDPOINT or body.get("completion_window") != "24h" or not self._present(file_id):
            return error_response(
                openai_wire,
                400,
                "Invalid batch.",
            )
        if self.desk.late_files:
            self.desk.late_files -= 1
            return error_response(openai_wire, 400, f"Cannot find file {file_id}.")
        lines = [_line(line) for line in self.desk.files[file_id]["content"].decode("ascii").splitlines()]
        await self.desk.held_up("before")
        if http.transport is None or http.transport.is_closing():
            # Whoever asked has been killed while it was held up.
            return web.Response()
        full = self.desk.is_full(len(lines))
        job = self.desk.take(openai_wire, lines, input_file_id=file_id, metadata=body.get("metadata") or {})
        if full:
            self.desk.fails[job.number] = ("token_limit_exceeded", None)
        await self.desk.held_up("after")
        if job.number in self.desk.lose_answers_to:
            if http.transport:
                http.transport.abort()
            return web.Response()
        return web.json_response(self._shown(job))

    async def look(self, http: web.Request) -> web.StreamResponse:
        job = self.desk.job(http.match_info["id"])
        if job is None:
            return error_response(openai_wire, 404, "No batch found with that id.")
        self.desk.look(self.engine, openai_wire, job)
        if job.ended and not job.problems and "output_file_id" not in job.fields:
            self._write_results(job)
        return web.json_response(self._shown(job))

    async def list_batches(self, http: web.Request) -> web.StreamResponse:
        jobs = [self._shown(job) for job in reversed(self.desk.jobs) if job.id.startswith("batch_")]
        return web.json_response({"object": "list", **page(jobs, http.query.get("after"), _limit(http))})

    async def cancel(self, http: web.Request) -> web.StreamResponse:
        job = self.desk.job(http.match_info["id"])
        if job is None:
            return error_response(openai_wire, 404, "No batch found with that id.")
        job.cancelling = True
        self.desk.cancelled.append(job.id)
        return web.json_response(self._shown(job))

    def _write_results(self, job: Job) -> None:
        answered, failed = [], []
        for sent in self.desk.shuffled(job):
            if sent.outcome == BROKEN:
                answered.append(f'{{"custom_id": "{sent.custom_id}", "respon')
            elif sent.outcome != MISSING:
                line = json.dumps(_result(sent), ensure_ascii=False)
                if self.desk.doubles and sent.completion:
                    error = json.dumps(_result(replace(sent, completion=None, outcome="500", error="Twice.")))
                    answered.append(error)
                    failed.append(error)
                (answered if sent.completion else failed).append(line)
        for field, lines in (("output_file_id", answered), ("error_file_id", failed)):
            content = "".join(line + "\n" for line in lines).encode("utf-8", "backslashreplace")
            job.fields[field] = self._store(f"{job.id}_{field}.jsonl", content, "batch_output")["id"] if lines else None

    def _shown(self, job: Job) -> dict[str, Any]:
        answered = sum(sent.completion is not None for sent in job.requests)
        done = len(job.requests) if job.ended and not job.problems else 0
        return {
            "id": job.id,
            "object": "batch",
            "endpoint": _ENDPOINT,
            "errors": {"object": "list", "data": job.problems} if job.problems else None,
            "input_file_id": job.fields["input_file_id"],
            "completion_window": "24h",
            "status": _status(job),
            "output_file_id": job.fields.get("output_file_id"),
            "error_file_id": job.fields.get("error_file_id"),
            "created_at": int(job.created),
            "expires_at": int(job.created) + 86_400,
            "request_counts": {"total": len(job.requests), "completed": answered, "failed": done - answered},
            "metadata": job.fields["metadata"],
        }


def _status(job: Job) -> str:
    if not job.ended:
        return "cancelling" if job.cancelling else ("validating" if job.looks < 1 else "in_progress")
    if job.problems:
        return "failed"
    if job.cancelling:
        return "cancelled"
    return "expired" if any(sent.outcome == EXPIRED for sent in job.requests) else "completed"


def _line(text: str) -> tuple[str, Any, str]:
    line = json.loads(text)
    right = line.get("method") == "POST" and line.get("url") == _ENDPOINT and isinstance(line.get("body"), dict)
    return line["custom_id"], line.get("body"), "" if right else "Invalid line."


def _result(sent: Sent) -> dict[str, Any]:
    result: dict[str, Any] = {"id": f"batch_req_{sent.custom_id[:8]}", "custom_id": sent.custom_id, "error": None}
    if sent.completion and sent.request:
        body = openai_wire.answer(sent.request, sent.completion, sent.custom_id[:8])
        return result | {"response": {"status_code": 200, "request_id": "req_batch", "body": body}}
    if sent.outcome == ODD:
        return result | {"response": {"status_code": 200, "request_id": "req_batch", "body": {"choices": [None]}}}
    if sent.outcome in _NEVER_ASKED:
        code, message = _NEVER_ASKED[sent.outcome]
        return result | {"response": None, "error": {"code": code, "message": message}}
    status = int(sent.outcome or 500)
    body = openai_wire.error(status, sent.error)
    return result | {"response": {"status_code": status, "request_id": "req_batch", "body": body}}


def _limit(http: web.Request) -> int:
    return int(http.query.get("limit", 20))
