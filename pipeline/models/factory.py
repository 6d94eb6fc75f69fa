"""From a model's name to a `ChatModel`: which key, which address, which local server."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config.addresses import reveal
from pipeline.config.model_names import SCORERS, ModelSpec, base_url
from pipeline.config.settings import PolicySettings
from pipeline.errors import ConfigError, RowReject
from pipeline.models.adaptation import FILE, adaptation_for
from pipeline.models.batch import ledger
from pipeline.models.batch.anthropic import AnthropicBatches
from pipeline.models.batch.api import BatchApi
from pipeline.models.batch.openai import OpenAIBatches
from pipeline.models.batch.provider import BatchProvider, Settings
from pipeline.models.chat import ChatModel
from pipeline.models.cost import Budget, Price
from pipeline.models.event_loop import worker_number
from pipeline.models.journal import Journal
from pipeline.models.keys import Access, access, read_key
from pipeline.models.limiter import limiter_for
from pipeline.models.local import catalog
from pipeline.models.local.server import cores, serve
from pipeline.models.prices import price_for
from pipeline.models.providers import AnthropicProvider, OpenAIProvider
from pipeline.models.request import Answer, ChatRequest, OnQuotas, Provider

# The fewest tokens of thoughts that Anthropic takes.
_LEAST_BUDGET = 1024
# Each keeps the model in memory: up to 2 GB for the default reviser.
_MOST_REPLICAS = 4
# In batch mode all rows may wait at the same time: that costs next to nothing.
_ALL_AT_ONCE = 100_000


def identity(spec: ModelSpec) -> dict[str, Any]:
    """What makes two models the same: provider, name and address, or the hash of a local model's file."""
    if spec.provider == "local":
        return {"provider": "local", "sha256": catalog.get(spec.name).sha256}
    return {"provider": spec.provider, "model": spec.name, "base_url": base_url(spec)}


def address(spec: ModelSpec) -> str:
    """A model's name with its address, also where the environment has it."""
    return str(ModelSpec(spec.provider, spec.name, base_url(spec)))


def check(role: str, settings: Settings, budget_usd: float | None, setting: str = "") -> None:
    """Refuse a model that can't be called, before anything is loaded. Raises ConfigError. setting: its own name."""
    setting, spec = setting or f"{role}.model", ModelSpec.parse(settings.model)
    if spec.provider in SCORERS:
        raise ConfigError(
            f"{setting}: {spec.provider}/ models score answers; to write them use local/, openai/ or anthropic/"
        )
    if spec.provider == "local":
        if settings.mode == "batch":
            raise ConfigError(f"{setting}: local models have no batch API; leave the mode at live")
        if spec.base_url:
            raise ConfigError(f"{setting}: local models have no address; for a server use openai/NAME@{spec.base_url}")
        catalog.get(spec.name)
        return
    read_key(setting, spec, settings.api_key_env)
    if budget_usd is not None and price_for(settings, spec) is None:
        raise ConfigError(
            f"{setting}: no known price for {spec}, so --budget can't be kept. Set it in US dollars per million tokens of "
            f"input and output, --set {role}.price=0.15,0.6 (0,0 for a server of your own), or put a line such as "
            f"`{spec}: [0.15, 0.6]` into a YAML file that FIGA_PRICES names"
        )


def chat_model(settings: Settings, *, journal: Journal, budget: Budget, local_file: Callable[[str], Path]) -> ChatModel:
    """The model that `settings` name. Nothing is connected or started before its first unanswered call."""
    spec = ModelSpec.parse(settings.model)
    price = price_for(settings, spec) or Price(0, 0, 0)
    role = type(settings).__name__.removesuffix("Settings").lower()

    def connect() -> Provider:
        if spec.provider == "local":
            file = local_file(spec.name)
            servers = [serve(file, replica=number) for number in range(concurrency)]
            accesses = [Access(server.base_url, server.api_key) for server in servers]
            return Replicas([OpenAIProvider(spec.name, access, settings.timeout_s) for access in accesses])
        if settings.mode == "live":
            return _remote(spec, settings.api_key_env, settings.timeout_s, role)
        api = batch_api(spec, settings.api_key_env, settings.timeout_s, role)
        batches = ledger.BatchLedger(journal.path.with_name(ledger.FILE))
        return BatchProvider(api, batches, budget, price, address(spec), settings)

    concurrency = _ALL_AT_ONCE if settings.mode == "batch" else calls_at_a_time(settings)
    return ChatModel(
        str(spec),
        identity(spec),
        connect,
        journal=journal,
        budget=budget,
        price=price,
        adaptation=adaptation_for(journal.path.with_name(FILE).absolute(), address(spec)),
        limiter=limiter_for(identity(spec), min(concurrency, settings.concurrency), settings.rpm, settings.tpm),
        concurrency=concurrency,
        attempts=settings.attempts,
        patience_s=settings.timeout_s,
        # Local servers keep a row's prompt in their cache: rows of two shards would push each other's out, and with it
        # what makes their answers repeatable.
        shard_lock=threading.Lock() if spec.provider == "local" else nullcontext(),
        reasoning_tokens=settings.reasoning_tokens,
        thinks=settings.reasoning_effort not in (None, "none"),
    )


def _remote(
    spec: ModelSpec, api_key_env: str | None, timeout_s: float, role: str
) -> OpenAIProvider | AnthropicProvider:
    sdk_provider = AnthropicProvider if spec.provider == "anthropic" else OpenAIProvider
    return sdk_provider(spec.name, access(f"{role}.model", spec, api_key_env), timeout_s)


def batch_api(spec: ModelSpec, api_key_env: str | None, timeout_s: float, role: str = "policy") -> BatchApi:
    """The batch API of a model's provider. `spec` may be as the ledger names a batch's model: with its address."""
    live = _remote(spec, api_key_env, timeout_s, role)
    return AnthropicBatches(live, timeout_s) if isinstance(live, AnthropicProvider) else OpenAIBatches(live, timeout_s)


def calls_at_a_time(settings: Settings) -> int:
    """How many calls a process may have in flight: the setting, and for a local model at most one per core."""
    if ModelSpec.parse(settings.model).provider == "local":
        return min(settings.concurrency, cores(), _MOST_REPLICAS)
    return settings.concurrency


class Replicas(Provider):
    """Several servers of one local model, each with one thread, one slot and one call at a time.

    Two servers with one thread each do twice the work of one; one server with two threads may do less than with one, as
    llama.cpp's threads wait for each other at every layer. A row's calls go to the same server, which still has the row's
    prompt in its cache. With one slot, and no cache in a row's first call, an answer does not depend on other rows.

    Nor over messages that are `shared` by the first calls of all rows: before each of these, a call of one token with the
    shared messages alone leaves exactly them in the cache, computed once, from an empty one.
    """

    def __init__(self, providers: list[OpenAIProvider]) -> None:
        self._providers = [(provider, asyncio.Lock()) for provider in providers]
        # What each server's cache begins with.
        self._cached: dict[OpenAIProvider, list[dict[str, str]]] = {}

    async def complete(self, request: ChatRequest, on_quotas: OnQuotas) -> Answer:
        provider, lock = self._providers[worker_number.get() % len(self._providers)]
        async with lock:
            if request.shared:
                request = await self._warm(provider, request, on_quotas)
            elif not request.params.get("extra_body", {}).get("cache_prompt"):
                self._cached.pop(provider, None)
            return await provider.complete(request, on_quotas)

    async def _warm(self, provider: OpenAIProvider, request: ChatRequest, on_quotas: OnQuotas) -> ChatRequest:
        """Leave the request's shared messages in the server's cache; returns the request, to be answered over them."""
        shared = request.messages[: request.shared]
        warm = self._cached.pop(provider, None) == shared
        # Every row's own message begins alike: with a line that this one doesn't have.
        alone = [*shared, {"role": "user", "content": "-"}]
        with suppress(RowReject):  # one token may be no answer
            await provider.complete(ChatRequest(alone, 1, _with_cache({}, warm)), on_quotas)
        self._cached[provider] = shared
        return replace(request, params=_with_cache(request.params, True))

    async def close(self) -> None:
        for provider, _ in self._providers:
            await provider.close()


def _with_cache(params: dict[str, Any], use: bool) -> dict[str, Any]:
    return {**params, "extra_body": {**params.get("extra_body", {}), "cache_prompt": use}}


def system_prompt(settings: PolicySettings) -> str | None:
    """The system prompt for queries without one: as set, else an embedded model's own; None for none."""
    spec = ModelSpec.parse(settings.model)
    if settings.system is None and spec.provider == "local":
        return catalog.get(spec.name).system
    return settings.system or None


def request_params(settings: Settings, spec: ModelSpec, row_seed: int, *, first: bool = True) -> dict[str, Any]:
    """The SDK parameters of one call, the `first` of its row or a later one. `extra` goes into the body unchanged."""
    params: dict[str, Any] = {"seed": row_seed}
    if settings.temperature is not None:
        params["temperature"] = settings.temperature
    if isinstance(settings, PolicySettings) and settings.top_p is not None:
        params["top_p"] = settings.top_p
    params |= _reasoning(settings, spec)
    extra = reveal(settings.extra)
    if spec.provider == "local":
        # llama.cpp sums in another order over a cached prompt: what another row left there must not show in the answer.
        extra = {**catalog.get(spec.name).defaults, "cache_prompt": not first, **extra}
    if extra:
        params["extra_body"] = extra
    return params


def _reasoning(settings: Settings, spec: ModelSpec) -> dict[str, Any]:
    """The parameters that say how much the model thinks, as its provider spells them."""
    effort, tokens = settings.reasoning_effort, settings.reasoning_tokens or 0
    if spec.provider != "anthropic":
        return {"reasoning_effort": effort} if effort else {}
    if effort == "none":
        return {"thinking": {"type": "disabled"}}
    if effort:
        return {"thinking": {"type": "adaptive"}, "output_config": {"effort": effort}}
    # Always below the limit that is sent, which is max_tokens more.
    return {"thinking": {"type": "enabled", "budget_tokens": tokens}} if tokens >= _LEAST_BUDGET else {}
