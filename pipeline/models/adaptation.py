"""What a server refuses of our requests, and what it gets in place of that.

A parameter that a refusal's body names is renamed, sent in another form or left out, and the call is made again: a refused
call costs nothing. Providers name it in many shapes and words; what is concluded from them is kept only when the server then
accepts the call:

    {"error": {"param": "max_tokens", "code": "unsupported_parameter", "message": …}}          OpenAI, Azure, Groq, xAI
    {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": …}]}                FastAPI, Mistral, vLLM
    [{"error": {"message": "… Unknown name \\"seed\\": Cannot find field."}}]                     Google
    {"error": {"message": "temperature: Extra inputs are not permitted"}}                       Anthropic
    "does not support parameters: ['logprobs']"                                                 LiteLLM

What the server accepted in the end holds for all later calls. It is kept in work/parameters.json, and it is part of the
journal's key.
"""

import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.errors import RowReject
from pipeline.models.error_words import Words, read_words
from pipeline.models.provider_errors import UselessAnswer
from pipeline.models.request import Answer, Changes
from pipeline.storage.atomic import write_text

FILE = "parameters.json"
# A request has fewer parameters.
_MOST_STEPS = 16
_FEWER_LOGPROBS = 5

LIMITS = ("max_tokens", "max_completion_tokens")
# What a request is about: never left out.
_CONTENT = ("model", "messages", "system", "extra_body")
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
_SIZE = re.compile(
    r"too (?:large|big|high|long|many|small|low)|at (?:most|least)|maximum|minimum|exceed|greater|larger|less than|context|"
    r"between|range|positive|[<>]=?",
    re.IGNORECASE,
)


class Refused(RowReject):
    """A request that the server refused. body: the refusal's; sent: the arguments of the call."""

    def __init__(self, reject: RowReject, body: str, sent: Mapping[str, Any]) -> None:
        super().__init__(reject.reason, **reject.evidence)
        self.body = body
        self.sent = sent


def refused(failure: Exception, body: str, sent: Mapping[str, Any]) -> Exception:
    """The failure of a call, as Refused where other parameters may help."""
    if type(failure) is not RowReject or failure.reason != "bad_request" or failure.evidence.get("status") == 413:
        return failure
    return Refused(failure, body, sent)


def apply_changes(arguments: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    """The arguments of a call as this server takes them."""
    sent = dict(arguments)
    extra = sent["extra_body"] = dict(sent.get("extra_body") or {})
    for name, change in changes.items():
        head, _, member = name.partition(".")
        for body in (sent, extra):
            if head not in body:
                continue
            value = body.pop(head)
            if member:
                rest = {key: each for key, each in value.items() if key != member}
                body.update({head: rest} if rest else {})
            elif change is not None:
                body[change.get("name", head)] = change.get("value", value)
    if not extra:
        del sent["extra_body"]
    return sent


def describe(changes: Changes) -> str:
    """
    >>> describe({"max_tokens": {"name": "max_completion_tokens"}, "seed": None})
    'max_tokens is sent as max_completion_tokens; seed is left out'
    """
    return "; ".join(
        f"{name} is left out"
        if change is None
        else f"{name} is sent as {change.get('name') or json.dumps(change['value'])}"
        for name, change in changes.items()
    )


class Adaptation:
    """What one model at one address gets in place of what it refuses. accepted: sets of changes, the newest last."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._accepted: list[Changes] = _read(path).get(name, [])
        # What the user hasn't read of yet.
        self.news: Changes = {}
        # Whether the model has shown thoughts, in this process.
        self.thinks = False

    @property
    def changes(self) -> Changes:
        return self._accepted[-1] if self._accepted else {}

    def variants(self) -> Iterator[Changes]:
        """The forms in which a request may have been answered, the newest first and the unchanged last."""
        yield from reversed(self._accepted)
        yield {}

    async def accepted(self, send: Callable[[Changes], Awaitable[Answer]]) -> Answer:
        """`send` a request with the changes that the server accepts. Raises what `send` raises; of refusals the first."""
        changes, first = self.changes, None
        for _ in range(_MOST_STEPS):
            try:
                answer = await send(changes)
            except UselessAnswer:
                self._keep(changes)
                raise
            except Refused as refusal:
                first = first or RowReject(refusal.reason, **refusal.evidence)
                further = next_changes(changes, refusal)
                if further is None:
                    break
                changes = further
            else:
                self._keep(changes)
                return answer
        raise first or RowReject("bad_request") from None

    def _keep(self, changes: Changes) -> None:
        if changes and changes not in self._accepted:
            self._accepted.append(changes)
            self.news = changes
            self.save()

    def save(self) -> None:
        """Write what is accepted, unless the file has it. Other processes may have added to the file."""
        known = _read(self._path)
        sets = known.get(self._name, [])
        if any(changes not in sets for changes in self._accepted):
            self._accepted = [*(changes for changes in sets if changes not in self._accepted), *self._accepted]
            write_text(
                self._path,
                json.dumps(known | {self._name: self._accepted}, indent=1, sort_keys=True) + "\n",
                private=True,
            )


@cache
def adaptation_for(path: Path, name: str) -> Adaptation:
    """This process's one adaptation for a model's name with its address. path: absolute."""
    return Adaptation(path, name)


def next_changes(changes: Changes, refusal: Refused) -> Changes | None:
    """The changes to try after a refusal; None when it names nothing that could be changed."""
    further = dict(changes)
    for name in refused_parameters(refusal.body, refusal.sent):
        value = refusal.sent.get(name)
        if name in LIMITS:
            if any(limit in changes for limit in LIMITS):
                return None
            further[name] = {"name": next(limit for limit in LIMITS if limit != name)}
        elif name == "response_format" and isinstance(value, dict) and value.get("type") == "json_schema":
            further[name] = {"value": {"type": "json_object"}}
        elif name == "top_logprobs" and isinstance(value, int) and value > _FEWER_LOGPROBS:
            further[name] = {"value": _FEWER_LOGPROBS}
        elif name == "thinking" and isinstance(value, dict) and value.get("type") == "enabled":
            # What Anthropic's newer models take in its place.
            further[name] = {"value": {"type": "adaptive"}}
        elif name in ("logprobs", "top_logprobs"):
            further |= {"logprobs": None, "top_logprobs": None}
        else:
            further[name] = None
    return further if further != changes else None


def _read(path: Path) -> dict[str, list[Changes]]:
    """The file's content; empty where there is none that can be used."""
    with suppress(OSError, ValueError, TypeError, AttributeError, RecursionError):
        content: dict[str, list[Changes]] = json.loads(path.read_text("utf-8"))
        every = [change for sets in content.values() for changes in sets for change in changes.values()]
        if all(change is None or change.keys() & {"name", "value"} for change in every):
            return content
    return {}


def refused_parameters(body: str, sent: Mapping[str, Any]) -> list[str]:
    """The names of `sent` parameters that a refusal's body names: all that it points at, else one of those in its words.

    Members of an object are `output_config.format`. The limit on tokens is named only where it is its name that is refused.
    """
    words, names = read_words(body), _parameters(sent)
    if limit := _refused_limit(names, words):
        return [limit]
    others = [name for name in names if name not in LIMITS]
    if pointed := [name for name in others if any(_is_named(name, pointer) for pointer in words.pointers)]:
        return pointed
    named = [name for name in others if _is_named(name, words.text)]
    return sorted(named, key=lambda name: (*_LEAST_MISSED, name).index(name))[:1]


def _parameters(sent: Mapping[str, Any]) -> list[str]:
    names: list[str] = []
    for name, value in {**sent, **(sent.get("extra_body") or {})}.items():
        if name == "output_config" and isinstance(value, dict):
            names += [f"{name}.{member}" for member in value]
        elif name not in _CONTENT:
            names.append(name)
    return names


def _refused_limit(names: list[str], words: Words) -> str | None:
    """The limit's name, if the server doesn't know it, or wants the other one."""
    limit = next((name for name in names if name in LIMITS), None)
    says = any(_LIMIT.search(text) for text in words.pointers or (words.text,))
    return limit if says and not _SIZE.search(words.text) else None


def _is_named(name: str, text: str) -> bool:
    """Whether a text has the name as a word: `top_p`, `topP`, `top p`."""
    spelled = "[ _-]?".join(map(re.escape, name.split("_")))
    pattern = _ALIASES.get(name, spelled)
    return bool(re.search(rf"(?<![A-Za-z0-9_])(?:{pattern})(?![A-Za-z0-9])", text, re.IGNORECASE))
