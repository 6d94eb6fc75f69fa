"""Which parameter of a request the body of a refusal names, whatever the provider's shape and words.

    {"error": {"param": "max_tokens", "code": "unsupported_parameter", "message": …}}          OpenAI, Azure, Groq, xAI
    {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": …}]}                FastAPI, Mistral, vLLM
    [{"error": {"message": "… Unknown name \\"seed\\": Cannot find field."}}]                     Google
    {"error": {"message": "temperature: Extra inputs are not permitted"}}                       Anthropic
    "does not support parameters: ['logprobs']"                                                 LiteLLM

Bodies are untrusted: what is concluded here is kept only when the server then accepts the call.
"""

import re
from collections.abc import Mapping
from typing import Any

from pipeline.models.error_words import members

LIMITS = ("max_tokens", "max_completion_tokens")
# What a request is about: never left out.
_CONTENT = ("model", "messages", "system", "extra_body")
_POINTERS = ("param", "parameter", "loc", "field", "argument")
_WORDS = ("message", "msg", "detail", "error", "reason", "description", "title", "raw", "errors", "")
# What else a parameter is called.
_ALIASES = {
    "response_format": r"response[ _]?format|json[ _]?(?:schema|mode|object)|structured[ _-]?outputs?|guided\w*|grammar",
    "output_config.format": r"output[ _]config(?:\.format)?|output[ _]format|json[ _]?schema|structured[ _-]?outputs?",
    "output_config.effort": r"output[ _]config\.effort|\beffort",
    "reasoning_effort": r"reasoning(?:[ _.]?effort)?|\bthink(?:ing)?\b",
    "thinking": r"\bthinking\b",
    "logprobs": r"(?<!top.)log[ _]?prob(?:abilitie)?s",
}
_LIMIT = re.compile(r"max[ _]?(?:completion|output|new)?[ _]?tokens", re.IGNORECASE)
# Of several that are named in a sentence, such as "`temperature` and `top_p` cannot both be specified", the first is left out.
_LEAST_MISSED = ("top_logprobs", "logprobs", "top_p", "seed", "temperature", "reasoning_effort", "thinking")
_REFUSES = re.compile(
    r"support|un(?:recogni[sz]ed|known|expected|available|permitted)|extra[ _]|only|cannot|can.t|can not|missing|invalid|range|"
    r"not (?:permitted|allowed|available|enabled|valid|implemented|accept|compatible|recogni[sz]ed)|deprecated|disabled|"
    r"at most|incompatible|must|should|forbidden|does not|doesn.t|no longer|remove|requires?|between|less than|expected",
    re.IGNORECASE,
)
_SIZE = re.compile(
    r"too (?:large|big|high|long|many|small|low)|at (?:most|least)|maximum|minimum|exceed|greater|larger|less than|context|"
    r"between|range|positive|[<>]=?",
    re.IGNORECASE,
)
_MOST_CHARACTERS = 20_000


def refused_parameters(body: str, sent: Mapping[str, Any]) -> list[str]:
    """The names of `sent` parameters that a refusal's body names: all that it points at, else one of those in its words.

    Members of an object are `output_config.format`. The limit on tokens is named only where it is its name that is refused.
    """
    pointers, words = _read(body[:_MOST_CHARACTERS])
    names = _parameters(sent)
    text = " ".join(words)
    if limit := _refused_limit(names, pointers, text):
        return [limit]
    others = [name for name in names if name not in LIMITS]
    if pointed := [name for name in others if any(_is_named(name, pointer) for pointer in pointers)]:
        return pointed
    if not _REFUSES.search(text):
        return []
    named = [name for name in others if _is_named(name, text)]
    return sorted(named, key=lambda name: (*_LEAST_MISSED, name).index(name))[:1]


def _parameters(sent: Mapping[str, Any]) -> list[str]:
    names: list[str] = []
    for name, value in {**sent, **(sent.get("extra_body") or {})}.items():
        if name == "output_config" and isinstance(value, dict):
            names += [f"{name}.{member}" for member in value]
        elif name not in _CONTENT:
            names.append(name)
    return names


def _refused_limit(names: list[str], pointers: list[str], text: str) -> str | None:
    """The limit's name, if the server doesn't know it, or wants the other one."""
    limit = next((name for name in names if name in LIMITS), None)
    if limit is None or _SIZE.search(text):
        return None
    if pointers:
        return limit if any(_LIMIT.search(pointer) for pointer in pointers) else None
    return limit if _LIMIT.search(text) and _REFUSES.search(text) else None


def _is_named(name: str, text: str) -> bool:
    """Whether a text has the name as a word: `top_p`, `topP`, `top p`."""
    spelled = "[ _-]?".join(map(re.escape, name.split("_")))
    pattern = _ALIASES.get(name, spelled)
    return bool(re.search(rf"(?<![A-Za-z0-9_])(?:{pattern})(?![A-Za-z0-9])", text, re.IGNORECASE))


def _read(body: str) -> tuple[list[str], list[str]]:
    """What a body points at, as dotted paths, and its sentences."""
    pointers: list[str] = []
    words: list[str] = []
    for name, value in members(body):
        if name in _POINTERS and value:
            pointers.append(".".join(map(str, value)) if isinstance(value, list) else str(value))
        elif isinstance(value, str) and name in _WORDS:
            words.append(value)
    return pointers, words or [body]
