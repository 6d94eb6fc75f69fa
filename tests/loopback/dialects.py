"""What today's providers and servers refuse of a chat call, in their own words and shapes.

A dialect looks at a call's body and gives the refusal, as status and body, or None where the call is taken:

    LoopbackServer(behaviour, dialect=dialects.gpt_5)

The bodies are those of public bug reports and documentation; values differ, shapes and wording don't.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Refusal = tuple[int, Any]
Dialect = Callable[[Mapping[str, Any]], Refusal | None]


def _openai(message: str, param: str | None, code: str | None, status: int = 400) -> Refusal:
    return status, {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def gpt_5(body: Mapping[str, Any]) -> Refusal | None:
    """OpenAI's reasoning models: the new name of the limit, the default temperature, neither top_p nor log probabilities."""
    if "max_tokens" in body:
        message = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        return _openai(message, "max_tokens", "unsupported_parameter")
    if body.get("temperature", 1) != 1:
        message = (
            f"Unsupported value: 'temperature' does not support {body['temperature']} with this model. "
            "Only the default (1) value is supported."
        )
        return _openai(message, "temperature", "unsupported_value")
    for name in ("top_p", "logprobs", "top_logprobs"):
        if name in body:
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            return _openai(message, name, "unsupported_parameter")
    return None


def azure(body: Mapping[str, Any]) -> Refusal | None:
    """An older API version: no parameter that came later."""
    for name in ("max_completion_tokens", "seed", "response_format"):
        if name in body:
            return _openai(f"Unrecognized request argument supplied: {name}", None, None)
    return None


def one_of_two(body: Mapping[str, Any]) -> Refusal | None:
    """Claude behind an OpenAI-compatible gateway."""
    if "temperature" in body and "top_p" in body:
        message = "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
        return 400, {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    return None


def anthropic(body: Mapping[str, Any]) -> Refusal | None:
    for name in ("temperature", "top_p", "seed", "top_k"):
        if name in body:
            message = f"{name}: Extra inputs are not permitted"
            return 400, {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    if "format" in (body.get("output_config") or {}):
        message = "output_config.format: structured outputs are not supported by this model"
        return 400, {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    return None


def mistral(body: Mapping[str, Any]) -> Refusal | None:
    known = {"model", "messages", "max_tokens", "temperature", "top_p", "random_seed", "response_format", "stop"}
    details = [
        {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted", "input": value}
        for name, value in body.items()
        if name not in known
    ]
    message = {"object": "error", "message": {"detail": details}, "type": "invalid_request_error", "code": None}
    return (422, message) if details else None


def fastapi(body: Mapping[str, Any]) -> Refusal | None:
    """vLLM with `--strict`, SGLang and home-made servers: pydantic's list."""
    details = [
        {
            "type": "extra_forbidden",
            "loc": ["body", "ChatCompletionRequest", name],
            "msg": "Extra inputs are not permitted",
        }
        for name in body
        if name in ("seed", "response_format", "max_completion_tokens")
    ]
    return (422, {"detail": details}) if details else None


def vllm_context(body: Mapping[str, Any]) -> Refusal | None:
    """A context that is shorter than what is asked for."""
    if body.get("max_tokens", 0) > 100:
        message = (
            f"'max_tokens' or 'max_completion_tokens' is too large: {body['max_tokens']}. This model's maximum context length "
            "is 128 tokens and your request has 28 input tokens. (parameter=max_tokens, value=512)"
        )
        return 400, {
            "object": "error",
            "message": message,
            "type": "BadRequestError",
            "param": "max_tokens",
            "code": 400,
        }
    return None


def gemini(body: Mapping[str, Any]) -> Refusal | None:
    """Google's OpenAI-compatible endpoint: a list around the error."""
    for name in ("seed", "logprobs", "top_logprobs"):
        if name in body:
            message = f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.'
            details = [
                {
                    "@type": "type.googleapis.com/google.rpc.BadRequest",
                    "fieldViolations": [{"description": message}],
                }
            ]
            return 400, [{"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT", "details": details}}]
    return None


def groq(body: Mapping[str, Any]) -> Refusal | None:
    if "logprobs" in body or "top_logprobs" in body:
        return _openai("'logprobs' : property 'logprobs' is unsupported", None, None)
    if (body.get("response_format") or {}).get("type") == "json_schema":
        message = "This model does not support response format `json_schema`. See supported models in the docs."
        return _openai(message, "response_format", None)
    return None


def deepseek(body: Mapping[str, Any]) -> Refusal | None:
    if (body.get("response_format") or {}).get("type") == "json_schema":
        return _openai("This response_format type is unavailable now", None, "invalid_request_error")
    if body.get("top_logprobs", 0) > 5:
        return _openai(
            "Invalid top_logprobs value, the valid range of top_logprobs is [0, 5]", None, "invalid_request_error"
        )
    return None


def litellm(body: Mapping[str, Any]) -> Refusal | None:
    refused = [name for name in ("seed", "logprobs", "top_logprobs", "response_format") if name in body]
    message = (
        f"litellm.UnsupportedParamsError: bedrock does not support parameters: {refused}, for model=claude. To drop these, set "
        "`litellm.drop_params=True` or for proxy:\n\n`litellm_settings:\n drop_params: true`\n"
    )
    return (400, {"error": {"message": message, "type": "None", "param": None, "code": "400"}}) if refused else None


def tgi(body: Mapping[str, Any]) -> Refusal | None:
    if body.get("temperature") == 0:
        message = "Input validation error: `temperature` must be strictly positive"
        return 422, {"error": message, "error_type": "validation"}
    if body.get("response_format"):
        return (
            422,
            "Failed to deserialize the JSON body into the target type: response_format: unknown variant `json_schema`",
        )
    return None


def databricks(body: Mapping[str, Any]) -> Refusal | None:
    for name in ("seed", "response_format"):
        if name in body:
            return 400, {"error_code": "BAD_REQUEST", "message": f'Bad request: json: unknown field "{name}"\n'}
    return None


def xai(body: Mapping[str, Any]) -> Refusal | None:
    if "seed" in body or "top_p" in body:
        name = "seed" if "seed" in body else "topP"
        return 400, {
            "code": "Client specified an invalid argument",
            "error": f"Model grok-4 does not support parameter {name}.",
        }
    return None


def everything(body: Mapping[str, Any]) -> Refusal | None:
    """Nothing that we could leave out helps."""
    return 400, {"error": {"code": "1210", "message": "API 调用参数有误，请检查文档。\x1b[2J"}}
