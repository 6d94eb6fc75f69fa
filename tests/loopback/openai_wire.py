"""OpenAI's spelling of a chat call: request body, answer, errors, rate-limit headers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tests.loopback import chat
from tests.loopback.chat import BadRequest, ChatRequest, Completion, Turn, canonical_key
from tests.loopback.limits import LimitState

NAME = "openai"
REQUEST_ID = "x-request-id"
# So that two runs of a test give the same bytes.
CREATED = 1_700_000_000

_FINISH = {chat.STOP_SEQUENCE: "stop", chat.REFUSAL: "stop"}
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    403: "permission_error",
    404: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    422: "invalid_request_error",
    429: "requests",
    503: "service_unavailable",
}
_ERROR_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}


def key_of(headers: Any) -> str | None:
    scheme, _, key = headers.get("Authorization", "").partition(" ")
    return key if scheme.lower() == "bearer" else None


def parse(body: dict[str, Any], headers: Any) -> ChatRequest:
    """Check what the real API checks of the fields this project sends. Raises `BadRequest`."""
    if not isinstance(body.get("model"), str):
        raise BadRequest("you must provide a model parameter", "model")
    turns = _turns(body.get("messages"))
    if body.get("n") not in (None, 1):
        raise BadRequest("this loopback server answers n=1 only", "n")
    if body.get("stream"):
        raise BadRequest("this loopback server does not stream", "stream")
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise BadRequest(f"max_tokens must be a positive integer, got {limit!r}", "max_tokens")
    stop = body.get("stop") or ()
    return ChatRequest(
        provider=NAME,
        model=body["model"],
        system="\n\n".join(turn.text for turn in turns if turn.role in ("system", "developer")),
        messages=tuple(turn for turn in turns if turn.role not in ("system", "developer")),
        params={name: value for name, value in body.items() if name not in ("model", "messages")},
        raw=body,
        key=canonical_key(NAME, body),
        max_tokens=limit,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        schema=_schema(body.get("response_format") or {}),
    )


def _turns(messages: Any) -> list[Turn]:
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be a list with at least one message", "messages")
    turns = []
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ("system", "developer", "user", "assistant"):
            raise BadRequest(f"messages[{index}].role must be system, developer, user or assistant", "messages")
        turns.append(Turn(message["role"], text_of(message.get("content"), f"messages[{index}].content")))
    return turns


def text_of(content: Any, where: str) -> str:
    """The text of a message's content: a string, or a list of text parts. Both providers spell it so."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return "\n".join(part.get("text", "") for part in content)
    raise BadRequest(f"{where} must be a string or a list of text parts", where)


def _schema(response_format: dict[str, Any]) -> dict[str, Any] | None:
    match response_format.get("type"):
        case "json_schema":
            schema = response_format.get("json_schema", {}).get("schema")
            if not isinstance(schema, dict):
                raise BadRequest("response_format.json_schema.schema is missing", "response_format")
            return schema
        case "json_object":
            return {"type": "object", "properties": {"answer": {"type": "string"}}}
    return None


def answer(request: ChatRequest, completion: Completion, call_id: str) -> dict[str, Any]:
    """The body of a chat completion."""
    choices = [_choice(request, completion)] if completion.has_choice else []
    usage = completion.usage
    return {
        "id": f"chatcmpl-{call_id}",
        "object": "chat.completion",
        "created": CREATED,
        "model": request.model,
        "choices": choices,
        "usage": {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.total,
            "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
            # Who leaves thoughts in the text doesn't count them.
            "completion_tokens_details": {
                "reasoning_tokens": 0 if completion.spelling in SPELLINGS else usage.reasoning_tokens,
                "audio_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": "fp_loopback",
    }


def _choice(request: ChatRequest, completion: Completion) -> dict[str, Any]:
    refused = completion.finish == chat.REFUSAL
    text = None if refused else completion.text
    return {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": text,
            "refusal": completion.text if refused else None,
            "annotations": [],
            **(_with_thoughts(completion) if completion.thoughts else {}),
        },
        "logprobs": _logprobs(text or "", completion.chances) if request.params.get("logprobs") else None,
        "finish_reason": _FINISH.get(completion.finish, completion.finish),
    }


# How servers without a reasoning parser write thoughts into the text: before them, and between them and the answer.
SPELLINGS = {
    "think": ("<think>\n", "\n</think>\n\n"),
    "prompted": ("", "\n</think>\n\n"),  # the prompt ends with the opening tag
    "thinking": ("<thinking>", "</thinking>\n"),
    "magistral": ("[THINK]", "[/THINK]"),
    "harmony": ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    "bare": ("analysis", "assistantfinal"),
}


def _with_thoughts(completion: Completion) -> dict[str, Any]:
    """What a message has of thoughts and content: hidden (only counted), in a field or parts of their own, in the text."""
    thoughts, text, spelling = completion.thoughts, completion.text, completion.spelling
    if spelling == "hidden":
        return {"content": text or ""}
    if spelling == "parts":
        thinking = {"type": "thinking", "thinking": [{"type": "text", "text": thoughts}], "closed": True}
        return {"content": [thinking, *([{"type": "text", "text": text}] if text else [])]}
    if spelling == "details":
        return {"content": text, "reasoning_details": [{"type": "reasoning.text", "text": thoughts}]}
    if spelling in SPELLINGS:
        opening, closing = SPELLINGS[spelling]
        return {"content": opening + thoughts + ("" if completion.still_thinking else closing + (text or ""))}
    return {spelling: thoughts, "content": text or None}


def _logprobs(text: str, chances: Mapping[str, float] | None) -> dict[str, Any]:
    """Pieces of the text with one log probability for all; if there are chances, its end as one token with them."""
    if chances:
        told = [_token(token, math.log(chance)) for token, chance in chances.items()]
        chosen = next(each for each in told if text.endswith(each["token"]))
        head = text.removesuffix(chosen["token"])
        before = [_token(head, -0.125) | {"top_logprobs": []}] if head else []
        return {"content": [*before, chosen | {"top_logprobs": told}], "refusal": None}
    step = chat.CHARACTERS_A_TOKEN
    pieces = [text[start : start + step] for start in range(0, len(text), step)]
    return {"content": [_token(piece, -0.125) | {"top_logprobs": []} for piece in pieces], "refusal": None}


def _token(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode("utf-8", "replace"))}


def error(status: int, message: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    kind = _ERROR_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    if code is not None and status == 429:
        kind = code
    return {"error": {"message": message, "type": kind, "param": param, "code": code or _ERROR_CODES.get(status)}}


def limit_headers(state: LimitState) -> dict[str, str]:
    """`x-ratelimit-*`, with OpenAI's way of writing time: "12ms", "1s", "6m0s"."""
    headers = {}
    for name, level in (("requests", state.requests), ("tokens", state.tokens)):
        if level is not None:
            headers[f"x-ratelimit-limit-{name}"] = str(level.limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(level.remaining)
            headers[f"x-ratelimit-reset-{name}"] = duration(level.reset_seconds)
    return headers


def retry_headers(seconds: float) -> dict[str, str]:
    return {
        "retry-after-ms": str(max(1, round(seconds * 1000))),
        "retry-after": str(max(1, -(-int(seconds * 1000) // 1000))),
    }


def duration(seconds: float) -> str:
    """
    >>> [duration(seconds) for seconds in (0, 0.012, 1, 1.5, 360, 3725.5)]
    ['0s', '12ms', '1s', '1.5s', '6m0s', '1h2m5.5s']
    """
    if seconds <= 0:
        return "0s"
    if seconds < 1:
        return f"{max(1, round(seconds * 1000))}ms"
    hours, rest = divmod(round(seconds, 3), 3600)
    minutes, rest = divmod(rest, 60)
    text = f"{rest:.3f}".rstrip("0").rstrip(".") + "s"
    if hours or minutes:
        text = f"{int(minutes)}m{text}"
    return f"{int(hours)}h{text}" if hours else text


def models(names: list[str]) -> dict[str, Any]:
    return {"object": "list", "data": [model(name) for name in names]}


def model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "loopback"}
