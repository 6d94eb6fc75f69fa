"""Anthropic's spelling of a chat call: request body, answer, errors, rate-limit headers."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.loopback import chat
from tests.loopback.chat import BadRequest, ChatRequest, Completion, Turn, canonical_key
from tests.loopback.limits import LimitState
from tests.loopback.openai_wire import text_of

NAME = "anthropic"
REQUEST_ID = "request-id"

_STOP_REASONS = {
    chat.STOP: "end_turn",
    chat.LENGTH: "max_tokens",
    # Anthropic has no separate word for a content filter.
    chat.CONTENT_FILTER: "refusal",
}
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def key_of(headers: Any) -> str | None:
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return headers.get("x-api-key") or (token if scheme.lower() == "bearer" else None)


def parse(body: dict[str, Any], headers: Any) -> ChatRequest:
    """Check what the real API checks of the fields this project sends. Raises `BadRequest`."""
    if headers is not None and "anthropic-version" not in headers:
        raise BadRequest("anthropic-version: header is required")
    if not isinstance(body.get("model"), str):
        raise BadRequest("model: Field required", "model")
    limit = body.get("max_tokens")
    if not isinstance(limit, int) or limit < 1:
        raise BadRequest(f"max_tokens: a positive integer is required, got {limit!r}", "max_tokens")
    if body.get("stream"):
        raise BadRequest("stream: this loopback server does not stream", "stream")
    thinking = body.get("thinking") or {}
    if thinking.get("type") == "enabled" and not 1024 <= thinking.get("budget_tokens", 0) < limit:
        raise BadRequest("thinking.budget_tokens: must be from 1024 and below max_tokens", "thinking.budget_tokens")
    output_format = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
    return ChatRequest(
        provider=NAME,
        model=body["model"],
        system=text_of(body["system"], "system") if body.get("system") else "",
        messages=_turns(body.get("messages")),
        params={name: value for name, value in body.items() if name not in ("model", "messages", "system")},
        raw=body,
        key=canonical_key(NAME, body),
        max_tokens=limit,
        stop=tuple(body.get("stop_sequences") or ()),
        schema=output_format.get("schema") if output_format.get("type") == "json_schema" else None,
    )


def _turns(messages: Any) -> tuple[Turn, ...]:
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages: at least one message is required", "messages")
    turns = []
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ("user", "assistant"):
            raise BadRequest(f"messages.{index}.role: must be user or assistant", "messages")
        turns.append(Turn(message["role"], text_of(message.get("content"), f"messages.{index}.content")))
    if turns[0].role != "user":
        raise BadRequest("messages: first message must use the user role", "messages")
    return tuple(turns)


def answer(request: ChatRequest, completion: Completion, call_id: str) -> dict[str, Any]:
    """The body of a message."""
    usage = completion.usage
    refused = completion.finish in (chat.REFUSAL, chat.CONTENT_FILTER)
    return {
        "id": f"msg_{call_id}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": _blocks(completion),
        "stop_reason": _STOP_REASONS.get(completion.finish, completion.finish),
        "stop_sequence": completion.stop_sequence,
        "stop_details": {"type": "refusal", "category": None, "explanation": completion.text} if refused else None,
        "usage": {
            "input_tokens": usage.input_tokens - usage.cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": usage.cached_tokens,
            "output_tokens": usage.output_tokens,
            "service_tier": "standard",
        },
    }


def _blocks(completion: Completion) -> list[dict[str, str]] | None:
    if completion.text is None and completion.has_choice:
        return None
    if completion.thoughts:
        thinking = {"type": "thinking", "thinking": completion.thoughts, "signature": "EpwB"}
        if completion.spelling == "redacted":
            thinking = {"type": "redacted_thinking", "data": "EmwK"}
        return [thinking, *([{"type": "text", "text": completion.text}] if completion.text else [])]
    # An empty answer has no block at all, nor has a refusal: so the real API does it.
    if not completion.text or completion.finish in (chat.REFUSAL, chat.CONTENT_FILTER):
        return []
    return [{"type": "text", "text": completion.text}]


def error(status: int, message: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """`param` and `code` are OpenAI's; Anthropic's errors have neither."""
    kind = _ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


def limit_headers(state: LimitState) -> dict[str, str]:
    """`anthropic-ratelimit-*`, with the time at which the bucket is full again in RFC 3339."""
    headers = {}
    for name, level in (("requests", state.requests), ("tokens", state.tokens)):
        if level is not None:
            full_at = datetime.now(UTC) + timedelta(seconds=math.ceil(level.reset_seconds))
            headers[f"anthropic-ratelimit-{name}-limit"] = str(level.limit)
            headers[f"anthropic-ratelimit-{name}-remaining"] = str(level.remaining)
            headers[f"anthropic-ratelimit-{name}-reset"] = full_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return headers


def retry_headers(seconds: float) -> dict[str, str]:
    return {"retry-after": str(max(1, math.ceil(seconds)))}


def models(names: list[str]) -> dict[str, Any]:
    data = [model(name) for name in names]
    return {
        "data": data,
        "has_more": False,
        "first_id": names[0] if names else None,
        "last_id": names[-1] if names else None,
    }


def model(name: str) -> dict[str, Any]:
    return {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}
