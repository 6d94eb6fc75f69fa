"""Reward servers over HTTP. What is sent and where the scores are is data: a template and two paths.

    vllm/NAME@http://host:8000              /classify, /score or /pooling, by `reward.endpoint`
    openrlhf/NAME@http://host:5000          /get_reward, as `openrlhf.cli.serve_rm` has it
    http/NAME@http://host/any               `reward.request`, `reward.scores`, `reward.index`

In a template, a string that is one of these is replaced by data, which is never looked at again: $texts $queries $answers
$conversations for the items of one request as lists; $text $query $answer $conversation for servers that take one item a
request; $model. A text is written by the chat template of `reward.tokenizer`, else as "\\n\\nHuman: …\\n\\nAssistant: …".

Scores are cheap and the stage files hold them, so nothing is journalled. A score that is missing, null or no number makes
its row a reject, as does a call that failed; a server that never answers stops the run. `REWARD_API_KEY`, if set, is sent.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from pipeline.config.model_names import ModelSpec
from pipeline.config.reward import RewardSettings
from pipeline.config.settings import digest
from pipeline.errors import ConfigError, RowReject
from pipeline.models import event_loop
from pipeline.models.event_loop import each_row
from pipeline.models.limiter import limiter_for
from pipeline.models.provider_errors import Transient, from_status, retry_after, snippet
from pipeline.models.retry import Breaker, retrying
from pipeline.rewards.texts import Writer

if TYPE_CHECKING:
    import httpx2

    from pipeline.rewards import Item, Score

# Raise when the same answers are read as other scores.
CODE = 1
_KEY = "REWARD_API_KEY"
_MANY = ("texts", "queries", "answers", "conversations")
_ONE = ("text", "query", "answer", "conversation")


class Wire(NamedTuple):
    """url: what is posted to; body: the template; scores, places: where those are in the answer; single: one item a request."""

    url: str
    body: dict[str, Any]
    scores: str
    places: str | None
    single: bool


def wire(settings: RewardSettings) -> Wire:
    """How the server that `settings` name is spoken to. Raises ConfigError."""
    spec = ModelSpec.parse(settings.model)
    url = spec.base_url or ""
    if spec.provider == "vllm":
        # Raw scores: a sigmoid would press the best and the worst together.
        body: dict[str, Any] = {"model": "$model", "use_activation": False}
        if settings.endpoint == "score":
            body |= {"text_1": "$queries", "text_2": "$answers"}
        else:
            body |= {"input": "$texts"} if settings.tokenizer else {"messages": "$conversation"}
        path = {"classify": "data.*.probs", "score": "data.*.score", "pooling": "data.*.data"}[settings.endpoint]
        found = Wire(f"{url.removesuffix('/v1')}/{settings.endpoint}", body, path, "data.*.index", False)
    elif spec.provider == "openrlhf":
        url += "" if urlsplit(url).path else "/get_reward"
        found = Wire(url, {"query": "$texts", "prompts": "$queries"}, "rewards", None, False)
    else:
        if settings.request is None or settings.scores is None:
            raise ConfigError(
                f"reward.model {spec}: say what the server takes and gives: reward.request, such as "
                "{inputs: $texts}, and reward.scores, such as results.*.score"
            )
        found = Wire(url, settings.request, settings.scores, settings.index, False)
    found = found._replace(body=found.body | settings.extra)
    named = {text[1:] for text in _strings(found.body) if text.startswith("$")}
    single = named & set(_ONE)
    if unknown := sorted(named - {*_MANY, *_ONE, "model"}):
        raise ConfigError(f"reward.request: unknown ${unknown[0]}; known are ${', $'.join((*_MANY, *_ONE, 'model'))}")
    if bool(single) == bool(named & set(_MANY)):
        raise ConfigError(
            f"reward.request: expected some of ${', $'.join(_MANY)} for many items a request, or of ${', $'.join(_ONE)} for "
            "one, and not both"
        )
    return found._replace(single=bool(single))


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in parts for text in _strings(part)]


def fill(template: Any, values: Mapping[str, Any]) -> Any:
    """The template with each `$name` replaced, in one pass.

    >>> fill({"inputs": "$texts", "kind": "rm"}, {"texts": ["$model"]})
    {'inputs': ['$model'], 'kind': 'rm'}
    """
    if isinstance(template, str):
        return values[template[1:]] if template.startswith("$") else template
    if isinstance(template, dict):
        return {key: fill(value, values) for key, value in template.items()}
    return [fill(value, values) for value in template] if isinstance(template, list) else template


class ServerReward:
    """A server that gives scores; several requests at a time, as for other models."""

    def __init__(self, settings: RewardSettings) -> None:
        self._settings = settings
        self._spec = ModelSpec.parse(settings.model)
        self._wire = wire(settings)
        self._writer = Writer(settings.tokenizer)
        self._client: httpx2.AsyncClient | None = None
        identity = {"provider": self._spec.provider, "model": self._spec.name, "base_url": self._wire.url}
        self._limiter = limiter_for(identity, settings.concurrency, settings.rpm, settings.tpm)
        self.name = str(self._spec)
        self._breaker = Breaker(self.name, "requests")
        self.digest = digest(CODE, self._spec.name, list(self._wire), settings.label, self._writer.digest)
        self.facts = {"kind": "reward server", **identity, "template": self._writer.digest[:16]}
        self.chunk = max(256, settings.concurrency * settings.batch_size)

    def score(self, items: Sequence[Item]) -> list[Score]:
        """One a (messages, answer) item, in the items' order, whatever the order of replies."""
        size = 1 if self._wire.single else self._settings.batch_size
        batches = [list(items[start : start + size]) for start in range(0, len(items), size)]
        told = each_row(batches, self._batch, workers=self._settings.concurrency)
        self._breaker.raise_if_all_failed()
        return [score for batch in told for score in batch]  # type: ignore[union-attr]  # _batch rejects none as a whole

    async def _batch(self, items: list[Item]) -> list[Score]:
        try:
            answer = await self._insisting(fill(self._wire.body, self._values(items)))
        except RowReject as reject:
            if reject.reason != "bad_request" or len(items) == 1:
                return [reject.like() for _ in items]
            # One of them, too long perhaps, must not take the others with it.
            return [(await self._batch([item]))[0] for item in items]
        return read(answer, len(items), self._wire, self._settings.label)

    def _values(self, items: list[Item]) -> dict[str, Any]:
        conversations = [[*messages, {"role": "assistant", "content": answer}] for messages, answer in items]
        many: dict[str, list[Any]] = {
            "texts": [self._writer.text(conversation) for conversation in conversations],
            "queries": [self._writer.query(messages) for messages, _ in items],
            "answers": [answer for _, answer in items],
            "conversations": conversations,
        }
        return many | {one: many[name][0] for one, name in zip(_ONE, _MANY, strict=True)} | {"model": self._spec.name}

    async def _insisting(self, body: dict[str, Any]) -> Any:
        """The server's answer, with tries as for other models. Raises RowReject or ProviderStopped."""
        try:
            answer: Any = await retrying(self._settings.attempts)(self._post, body)
        except Transient as error:
            self._breaker.fails(str(error))
            raise RowReject(error.reason, model=self.name, error=str(error)).passing() from None
        except RowReject as reject:
            # No row's fault, but the address's.
            if reject.evidence.get("status") == 404:
                self._breaker.fails(f"status 404: {reject.evidence['error']} (check the address)")
                raise reject.passing() from None
            self._breaker.works()
            raise
        self._breaker.works()
        return answer

    async def _post(self, body: dict[str, Any]) -> Any:
        import httpx2

        if self._client is None:
            key = os.environ.get(_KEY)
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            # How many connections there are is the limiter's to say.
            free = httpx2.Limits(max_connections=None)
            self._client = httpx2.AsyncClient(timeout=self._settings.timeout_s, headers=headers, limits=free)
            event_loop.at_exit(self._client.aclose)
        with await self._limiter.start(sum(map(len, _strings(body)))):
            try:
                async with asyncio.timeout(self._settings.timeout_s):
                    response = await self._client.post(self._wire.url, json=body)
            except (TimeoutError, httpx2.TimeoutException):
                raise Transient("timed_out", "no answer within the time-out") from None
            except (httpx2.HTTPError, OSError) as error:
                raise Transient("connection_lost", snippet(f"connection: {error}")) from None
            if response.status_code != 200:
                wait_s = retry_after(response.headers)
                raise from_status(response.status_code, None, response.text, self.name, wait_s=wait_s)
            try:
                return json.loads(response.content)
            except (ValueError, RecursionError):
                raise Transient("malformed_answer", f"status 200 with {snippet(response.text)!r}") from None


def read(answer: Any, count: int, wire: Wire, label: int | None) -> list[Score]:
    """The scores of `count` items in an answer, in the items' order; a RowReject for each that it has none for."""
    values = _at(answer, wire.scores.split("."))
    if values is None:
        shown = snippet(json.dumps(answer)[:2000])
        return [RowReject("bad_reward", error=f"nothing at {wire.scores} in {shown}") for _ in range(count)]
    values = values if isinstance(values, list) else [values]
    places = _at(answer, wire.places.split(".")) if wire.places else None
    if not isinstance(places, list):
        if len(values) != count:
            return [RowReject("bad_reward", error=f"{len(values)} scores for {count} answers") for _ in range(count)]
        places = list(range(count))
    found: dict[int, list[Any]] = {}
    for place, value in zip(places, values, strict=False):
        if isinstance(place, int):
            found.setdefault(place, []).append(value)
    told: list[Score] = []
    for n in range(count):
        given = found.get(n, [])
        wrong = "no score" if not given else f"{len(given)} scores"
        told.append(
            number(given[0], label) if len(given) == 1 else RowReject("bad_reward", error=f"{wrong} for this answer")
        )
    return told


def _at(value: Any, path: Sequence[str]) -> Any:
    """What stands at a path of keys and places, `*` for each of a list; None if nothing does.

    >>> _at({"data": [{"score": 1}, {"score": 2}]}, ["data", "*", "score"])
    [1, 2]
    """
    for step, name in enumerate(path):
        if name == "*":
            return [_at(each, path[step + 1 :]) for each in value] if isinstance(value, list) else None
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.lstrip("-").isdigit() and -len(value) <= int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def number(value: Any, label: int | None) -> Score:
    """The one number that a score is given as: plain, in a list, as the `label` of several, or as a token's, the last one's."""
    while isinstance(value, list) and value:
        several = len(value) > 1 and not isinstance(value[0], list)
        if several and (label is None or label >= len(value)):
            return RowReject(
                "bad_reward", error=f"{len(value)} numbers: reward.label says which is the score", got=value[:8]
            )
        value = value[label or 0] if several else value[-1]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return RowReject("bad_reward", error=f"expected a number, got {snippet(repr(value))}")
    try:
        return float(value)
    except OverflowError:
        return math.inf
