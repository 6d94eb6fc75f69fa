"""Refusals as today's providers and gateways word them: status, body, headers. Each may be a fault's name in a plan.

Bodies are copied from public bug reports and the providers' documentation, with names and ids changed. A key is the name of
who says it and of what.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

_JSON, _HTML = "application/json", "text/html"


@dataclass(frozen=True)
class Refusal:
    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()

    @property
    def content_type(self) -> str:
        return _HTML if isinstance(self.body, str) and self.body.startswith("<") else _JSON


def _openai(message: str, code: str | None = None, kind: str = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _anthropic(message: str, kind: str = "invalid_request_error") -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy"}


def _openrouter(code: int, message: str, **metadata: Any) -> dict[str, Any]:
    return {
        "error": {"code": code, "message": message, **({"metadata": metadata} if metadata else {})},
        "user_id": "u_1",
    }


def _gemini(status: int, word: str, message: str, *details: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"error": {"code": status, "message": message, "status": word, "details": list(details)}}]


_BLOCKED = (
    "<!DOCTYPE html>\n<html><head><title>Attention Required! | Cloudflare</title></head>\n<body><h1>Sorry, you have been "
    "blocked</h1><p>Cloudflare Ray ID: 8f1a2b3c4d5e6f70</p></body></html>"
)
_QUOTA = "You exceeded your current quota, please check your plan and billing details."

# The account is empty: every call, until somebody pays.
MONEY = {
    "openai_quota": Refusal(429, _openai(_QUOTA, "insufficient_quota", "insufficient_quota")),
    "anthropic_credit": Refusal(
        400,
        _anthropic(
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or "
            "purchase credits."
        ),
    ),
    "anthropic_usage_limits": Refusal(
        400,
        _anthropic(
            "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."
        ),
    ),
    "litellm_budget": Refusal(
        400, _openai("Budget has been exceeded! Current cost: 10.2, Max budget: 10.0", "400", "budget_exceeded")
    ),
    "moonshot_quota": Refusal(
        429,
        {"error": {"message": "Your account is suspended, please recharge", "type": "exceeded_current_quota_error"}},
    ),
    "deepseek_balance": Refusal(402, _openai("Insufficient Balance", "invalid_request_error", "unknown_error")),
    "openrouter_credits": Refusal(402, _openrouter(402, "This request requires more credits, or fewer max_tokens.")),
    "openrouter_credits_in_200": Refusal(200, _openrouter(402, "Insufficient credits")),
    "choice_credits_in_200": Refusal(
        200, {"choices": [{"finish_reason": "error", "error": {"code": 402, "message": "Insufficient credits"}}]}
    ),
    "xai_no_credits": Refusal(
        403,
        {
            "code": "The caller does not have permission",
            "error": "Your newly created team doesn't have any credits yet.",
        },
    ),
    "dashscope_arrears": Refusal(
        400, _openai("Access denied, make sure your account is in good standing.", "Arrearage")
    ),
    "fireworks_suspended": Refusal(412, _openai("Account acme is suspended, reaching the monthly spending limit")),
    "huggingface_credits": Refusal(402, {"error": "You have exceeded your monthly included credits."}),
    "zhipu_balance": Refusal(429, {"error": {"code": "1113", "message": "余额不足或无可用资源包,请充值。"}}),
}

# Every call, for another reason.
STOPPING = {
    "gemini_wrong_key": Refusal(
        400,
        _gemini(
            400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", {"reason": "API_KEY_INVALID"}
        ),
    ),
    "account_disabled": Refusal(403, _anthropic("This organization has been disabled for violating usage policies.")),
    "openai_no_region": Refusal(
        403, _openai("Country, region, or territory not supported", "unsupported_country_region")
    ),
}

# A limit that lasts for hours.
DAILY = {
    "day_retry_after": Refusal(429, _openai("Too many requests per day."), {"Retry-After": "25200"}),
    "hours_retry_after": Refusal(429, _openai("Slow down."), {"Retry-After": "25200"}),
    "openai_rpd": Refusal(
        429,
        _openai(
            "Rate limit reached for gpt-x in organization org-1 on requests per day (RPD): Limit 200, Used 200, Requested 1. "
            "Please try again in 7m12s.",
            "rate_limit_exceeded",
            "requests",
        ),
    ),
    "gemini_day": Refusal(
        429,
        _gemini(
            429,
            "RESOURCE_EXHAUSTED",
            f"{_QUOTA} Please retry in 34.07s.",
            {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]},
            {"retryDelay": "34s"},
        ),
    ),
    "openrouter_free_day": Refusal(
        429,
        _openrouter(
            429,
            "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day",
            headers={"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "4102444800000"},
        ),
    ),
    "bedrock_day": Refusal(429, {"message": "Too many tokens per day, please wait before trying again."}),
    "reset_header": Refusal(
        429,
        _openai("Rate limit reached."),
        {
            "x-ratelimit-limit-requests": "1000",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "7h0m0s",
        },
    ),
}

# One row that a filter stops.
MODERATED = {
    "openrouter_flagged": Refusal(
        403,
        _openrouter(
            403,
            "openai/gpt-x requires moderation on OpenAI. Your input was flagged.",
            reasons=["violence"],
            flagged_input="Your credit balance is too low, they said, and…",
            provider_name="OpenAI",
        ),
    ),
    "azure_filter": Refusal(
        400,
        {
            "error": {
                "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
                "type": None,
                "param": "prompt",
                "code": "content_filter",
                "innererror": {"code": "ResponsibleAIPolicyViolation"},
            }
        },
    ),
    "dashscope_inspection": Refusal(
        400,
        _openai("Input data may contain inappropriate content.", "data_inspection_failed", "data_inspection_failed"),
    ),
    "dashscope_inspection_in_200": Refusal(
        200,
        _openai("Output data may contain inappropriate content.", "data_inspection_failed", "data_inspection_failed"),
    ),
    "anthropic_policy": Refusal(400, _anthropic("Output blocked by content filtering policy")),
    "openai_invalid_prompt": Refusal(
        400,
        _openai("Invalid prompt: it was flagged as potentially violating our usage policy.", "invalid_prompt"),
    ),
    "xai_guidelines": Refusal(403, {"code": "denied", "error": "Content violates usage guidelines. Failed: SAFETY"}),
    "zhipu_sensitive": Refusal(
        400, {"contentFilter": [{"level": 1}], "error": {"code": "1301", "message": "敏感内容"}}
    ),
}

# One row that a firewall stops.
BLOCKED = {
    "cloudflare_403": Refusal(403, _BLOCKED),
    "modsecurity_406": Refusal(
        406, "<html><head><title>Not Acceptable!</title></head><body>Mod_Security</body></html>"
    ),
}

# One row that the server finds fault with, and the words that must reach the user.
BAD = {
    "openai_context": (
        Refusal(400, _openai("This model's maximum context length is 8192 tokens.", "context_length_exceeded")),
        "maximum context length is 8192 tokens",
    ),
    "vllm_context": (
        Refusal(
            400, {"object": "error", "message": "too many input tokens: 9000", "type": "BadRequestError", "code": 400}
        ),
        "BadRequestError too many input tokens: 9000",
    ),
    "anthropic_413": (
        Refusal(413, _anthropic("Request exceeds the maximum size", "request_too_large")),
        "Request exceeds the maximum size",
    ),
    "nginx_413": (
        Refusal(413, "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>nginx</body></html>"),
        "413 Request Entity Too Large",
    ),
    "openai_too_large_429": (
        Refusal(
            429, _openai("Request too large for gpt-x on tokens per min (TPM): Limit 30000, Requested 45000.", "tokens")
        ),
        "Limit 30000, Requested 45000",
    ),
    "unknown_parameter": (
        Refusal(400, _openai("Unrecognized request argument supplied: top_k")),
        "Unrecognized request argument supplied: top_k",
    ),
    "fastapi_detail": (
        Refusal(
            422,
            {"detail": [{"type": "missing", "loc": ["body", "top_p"], "msg": "Field required", "input": {"a": 1}}]},
        ),
        "body.top_p: Field required",
    ),
    "fastapi_text": (Refusal(400, {"detail": "Prompt exceeds the limit"}), "Prompt exceeds the limit"),
    "mistral_detail": (
        Refusal(422, {"object": "error", "message": {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs"}]}}),
        "body.seed: Extra inputs",
    ),
    "gemini_list": (
        Refusal(400, _gemini(400, "INVALID_ARGUMENT", "Invalid value at 'seed'")),
        "Invalid value at 'seed'",
    ),
    "plain_string": (Refusal(400, '"seed is not supported"'), "seed is not supported"),
    "error_string": (Refusal(400, {"error": "registry: model is required"}), "registry: model is required"),
    "error_list": (
        Refusal(422, {"error": ["first fault", "second fault"], "warnings": []}),
        "first fault; second fault",
    ),
    "openrouter_raw": (
        Refusal(
            400,
            _openrouter(
                400,
                "Provider returned error",
                raw=json.dumps(_openai("Unsupported parameter: 'logprobs'")),
                provider_name="OpenAI",
            ),
        ),
        "Unsupported parameter: 'logprobs'",
    ),
    "openrouter_raw_text": (
        Refusal(400, _openrouter(400, "Provider returned error", raw="the upstream's own words")),
        "the upstream's own words",
    ),
    "empty_400": (Refusal(400, ""), "no words"),
    "ollama_context_500": (
        Refusal(500, {"error": "the input length exceeds the context length"}),
        "exceeds the context",
    ),
    "terminal_controls": (
        Refusal(400, _openai("\x1b[2Jbad \u202eseed\u202c\x07")),
        "<001b>[2Jbad <202e>seed<202c><0007>",
    ),
}

LOADING = {
    "llama_cpp_loading": Refusal(
        503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
    ),
    "huggingface_loading": Refusal(503, {"error": "Model m is currently loading", "estimated_time": 0.05}),
}

REFUSALS: dict[str, Refusal] = {
    **MONEY,
    **STOPPING,
    **DAILY,
    **MODERATED,
    **BLOCKED,
    **LOADING,
    **{name: refusal for name, (refusal, _) in BAD.items()},
}
