"""Reward servers over HTTP. A template gives the request's body, and two paths say where the scores are in the response.

    vllm/NAME@http://host:8000              /classify, /score or /pooling, by `reward.endpoint`
    openrlhf/NAME@http://host:5000          /get_reward, as in `openrlhf.cli.serve_rm`
    http/NAME@http://host/any               `reward.request`, `reward.scores`, `reward.index`

Strings of a template that are replaced by data: $texts $queries $answers $conversations, lists over the items of a request;
$text $query $answer $conversation for servers that take one item per request; $model. The chat template of
`reward.tokenizer` writes a conversation as text; without one it is "\\n\\nHuman: …\\n\\nAssistant: …".

A score that is missing or not a number makes its row a reject, as does a failed request; a server that never answers stops the
run. The key in the variable that `reward.api_key_env` names is sent as bearer token.
"""

import asyncio
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from pipeline.config.addresses import reveal
from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import RewardSettings
from pipeline.errors import ConfigError, RowReject
from pipeline.labels.loading import auto_tokenizer, loading
from pipeline.models import event_loop
from pipeline.models.error_words import read_words, wait_by_headers
from pipeline.models.event_loop import each_row
from pipeline.models.keys import Access, access, is_loopback, usable_proxy
from pipeline.models.limiter import limiter_for
from pipeline.models.provider_errors import Transient, from_status, snippet
from pipeline.models.providers import limit_body
from pipeline.models.retry import Breaker, retrying
from pipeline.rewards.base import Item, RewardModel, Score
from pipeline.schema import digest

if TYPE_CHECKING:
    import httpx2

# Raise when the same responses are read as other scores.
CODE = 1
_LISTS = ("texts", "queries", "answers", "conversations")
_SINGLES = ("text", "query", "answer", "conversation")
_SPEAKERS = {"user": "Human", "assistant": "Assistant", "system": "System"}


class ServerApi(NamedTuple):
    """How a server is called."""

    url: str
    body: dict[str, Any]
    scores_path: str  # to the scores in a response
    index_path: str | None  # to the item that each score is of
    one_per_request: bool


def server_api(settings: RewardSettings) -> ServerApi:
    """How to call the server that `settings` name. Raises ConfigError."""
    spec = ModelSpec.parse(settings.model)
    url = spec.base_url
    if not url:
        raise ConfigError(f"reward.model: {spec} needs an address, as in {spec.provider}/NAME@http://host:8000")
    index_path: str | None = None
    if spec.provider == "vllm":
        base, question, query = url.partition("?")
        url = f"{base.removesuffix('/v1')}/{settings.endpoint}{question}{query}"
        # Raw scores: a sigmoid would press the best and the worst together.
        body: dict[str, Any] = {"model": "$model", "use_activation": False}
        if settings.endpoint == "score":
            body |= {"text_1": "$queries", "text_2": "$answers"}
        else:
            body |= {"input": "$texts"} if settings.tokenizer else {"messages": "$conversation"}
        paths = {"classify": "data.*.probs", "score": "data.*.score", "pooling": "data.*.data"}
        scores_path, index_path = paths[settings.endpoint], "data.*.index"
    elif spec.provider == "openrlhf":
        url += "" if urlsplit(url).path else "/get_reward"
        body, scores_path = {"query": "$texts", "prompts": "$queries"}, "rewards"
    elif settings.request is None or settings.scores is None:
        wanted = "reward.request, such as {inputs: $texts}, and reward.scores, such as results.*.score"
        raise ConfigError(f"reward.model {spec}: say what the server takes and gives: {wanted}")
    else:
        body, scores_path, index_path = settings.request, settings.scores, settings.index
    body = body | settings.extra
    return ServerApi(url, body, scores_path, index_path, _takes_one_item(body))


def _takes_one_item(body: dict[str, Any]) -> bool:
    """Whether a template is for one item per request, not for many. Raises ConfigError."""
    names = {text[1:] for text in _strings(body) if text.startswith("$")}
    known = (*_LISTS, *_SINGLES, "model")
    if unknown := sorted(names.difference(known)):
        raise ConfigError(f"reward.request: unknown ${unknown[0]}; known are ${', $'.join(known)}")
    one = bool(names & set(_SINGLES))
    if one == bool(names & set(_LISTS)):
        many = f"some of ${', $'.join(_LISTS)} for many items per request"
        raise ConfigError(f"reward.request: expected {many}, or of ${', $'.join(_SINGLES)} for one, and not both")
    return one


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


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


class ServerReward(RewardModel):
    """A server that returns scores; several requests at a time, with the limits and retries of language models."""

    def __init__(self, settings: RewardSettings) -> None:
        self._settings = settings
        self._spec = ModelSpec.parse(settings.model)
        self._api = server_api(settings)
        self._tokenizer = _load_tokenizer(settings.tokenizer) if settings.tokenizer else None
        self._client: httpx2.AsyncClient | None = None
        identity = {"provider": self._spec.provider, "model": self._spec.name, "base_url": self._api.url}
        self._limiter = limiter_for(identity, settings.concurrency, settings.rpm, settings.tpm)
        self.name = str(self._spec)
        self._breaker = Breaker(self.name, "requests", "the address", lambda stage: False)
        template = digest(str(self._tokenizer.chat_template) if self._tokenizer else "transcript")
        self.digest = digest(CODE, self._spec.name, list(self._api), settings.label, template)
        self.facts = {"kind": "reward server", **identity, "template": template[:16]}
        self.rows_per_call = max(256, settings.concurrency * settings.batch_size)

    @cached_property
    def _access(self) -> Access:
        return access("reward.model", self._spec, self._settings.api_key_env)

    def score(self, items: Sequence[Item], references: Sequence[str]) -> list[Score]:
        """One score per item, in the items' order. References are not used."""
        size = 1 if self._api.one_per_request else self._settings.batch_size
        batches = [items[start : start + size] for start in range(0, len(items), size)]
        results = each_row(batches, self._score_batch, workers=self._settings.concurrency)
        self._breaker.raise_if_all_failed()
        return [score for scores in results for score in scores]  # type: ignore[union-attr]  # no batch is a reject

    async def _score_batch(self, items: Sequence[Item]) -> list[Score]:
        try:
            with self._breaker.watch("score"):
                body = fill(reveal(self._api.body), self._values(items))
                response: Any = await retrying(self._settings.attempts, self._settings.timeout_s)(self._send, body)
        except RowReject as reject:
            if reject.reason != "bad_request" or len(items) == 1:
                return [reject.copy_with() for _ in items]
            # One item, too long perhaps, must not reject the others.
            return [(await self._score_batch([item]))[0] for item in items]
        return _read_scores(response, len(items), self._api, self._settings.label)

    def _values(self, items: Sequence[Item]) -> dict[str, Any]:
        conversations = [[*messages, {"role": "assistant", "content": answer}] for messages, answer in items]
        if self._tokenizer:
            texts = [str(self._tokenizer.apply_chat_template(each, tokenize=False)) for each in conversations]
        else:
            texts = [
                "".join(f"\n\n{_SPEAKERS.get(m['role'], m['role'])}: {m['content']}" for m in c) for c in conversations
            ]
        queries = ["\n\n".join(message["content"] for message in messages) for messages, _ in items]
        lists: list[list[Any]] = [texts, queries, [answer for _, answer in items], conversations]
        values: dict[str, Any] = dict(zip(_LISTS, lists, strict=True))
        values |= {name: each[0] for name, each in zip(_SINGLES, lists, strict=True)}
        return values | {"model": self._spec.name}

    async def _send(self, body: dict[str, Any]) -> Any:
        """The server's response as JSON. Raises Transient or RowReject."""
        import httpx2

        if self._client is None:
            key = self._access.api_key
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            # The limiter decides how many connections there are.
            unlimited = httpx2.Limits(max_connections=None)
            with usable_proxy():
                self._client = httpx2.AsyncClient(
                    timeout=self._settings.timeout_s,
                    headers=headers,
                    limits=unlimited,
                    trust_env=not is_loopback(self._api.url),
                    event_hooks={"response": [limit_body]},
                )
            event_loop.at_exit(self._client.aclose)
        with await self._limiter.start(sum(map(len, _strings(body)))):
            try:
                async with asyncio.timeout(self._settings.timeout_s):
                    response = await self._client.post(reveal(self._api.url), json=body)
            except (TimeoutError, httpx2.TimeoutException):
                raise Transient("timed_out", "no answer within the time-out") from None
            except (httpx2.HTTPError, OSError) as error:
                raise Transient("connection_lost", snippet(f"connection: {error}")) from None
            if response.status_code != 200:
                wait_s = wait_by_headers(response.headers)
                failure = from_status(response.status_code, read_words(response.text), self.name, wait_s=wait_s)
                raise self._access.explained(failure, response.status_code)
            try:
                return json.loads(response.content)
            except (ValueError, RecursionError):
                raise Transient("malformed_answer", f"status 200 with {snippet(response.text)!r}") from None


def _read_scores(response: Any, count: int, api: ServerApi, label: int | None) -> list[Score]:
    """The scores of `count` items in a response, in the items' order; a RowReject for each item without exactly one."""
    values = _follow(response, api.scores_path.split("."))
    if values is None:
        error = f"nothing at {api.scores_path} in {snippet(json.dumps(response)[:2000])}"
        return [RowReject("bad_reward", error=error) for _ in range(count)]
    values = values if isinstance(values, list) else [values]
    indices = _follow(response, api.index_path.split(".")) if api.index_path else None
    if not isinstance(indices, list):
        if len(values) != count:
            return [RowReject("bad_reward", error=f"{len(values)} scores for {count} answers") for _ in range(count)]
        indices = list(range(count))
    by_item: list[list[Any]] = [[] for _ in range(count)]
    for index, value in zip(indices, values, strict=False):
        if isinstance(index, int) and 0 <= index < count:
            by_item[index].append(value)
    return [
        _read_number(scores[0], label)
        if len(scores) == 1
        else RowReject("bad_reward", error=f"{len(scores) or 'no'} score{'s' if scores else ''} for this answer")
        for scores in by_item
    ]


def _follow(value: Any, path: Sequence[str]) -> Any:
    """The value at a path of keys and list indices, `*` for every element of a list; None when there is none.

    >>> _follow({"data": [{"score": 1}, {"score": 2}]}, ["data", "*", "score"])
    [1, 2]
    """
    for step, name in enumerate(path):
        if name == "*":
            return [_follow(each, path[step + 1 :]) for each in value] if isinstance(value, list) else None
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.lstrip("-").isdigit() and -len(value) <= int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def _read_number(value: Any, label: int | None) -> Score:
    """A score as one number: plain, in a list, output `label` of several, or the last token's."""
    while isinstance(value, list) and value:
        several = len(value) > 1 and not isinstance(value[0], list)
        if several and (label is None or label >= len(value)):
            error = f"{len(value)} numbers: reward.label says which is the score"
            return RowReject("bad_reward", error=error, got=value[:8])
        value = value[label or 0] if several else value[-1]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return RowReject("bad_reward", error=f"expected a number, got {snippet(repr(value))}")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _load_tokenizer(name: str) -> Any:
    """A tokenizer with a chat template. Raises ConfigError."""
    with loading("reward.tokenizer", name) as options:
        tokenizer = auto_tokenizer().from_pretrained(name, **options)
    if not tokenizer.chat_template:
        raise ConfigError(f"reward.tokenizer {name}: has no chat template to write conversations with")
    return tokenizer
