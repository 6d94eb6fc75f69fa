"""What a model costs, from the first of these that knows it:

    the setting     policy.price=0,0 (also reviser, reward): input and output, for a server of one's own
    FIGA_PRICES     the user's own YAML file: `openai/NAME: [0.15, 0.6]`, `openai/NAME@URL: {input: …, output: …}`
    genai-prices    public prices of some fifty providers, as of the installed package; offline. The address of a model says
                    whose: openai/deepseek-chat@https://api.deepseek.com/v1 costs what it does at DeepSeek

All in US dollars per million tokens. Where a provider's price depends on the hour, or rises within a month, the dearer counts.
"""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipeline.config.model_names import ANTHROPIC_URL, ModelSpec, base_url
from pipeline.config.values import Calls
from pipeline.errors import ConfigError
from pipeline.models.cost import Price
from pipeline.text import one_line

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

# Of the live price, where no table says.
_BATCH_SHARE = 0.5
_SOON = timedelta(days=31)
# A snapshot costs what its model does, unless the data lists it.
_DATED = re.compile(r"-(latest|\d{8}|\d{4}-\d{2}-\d{2})$")
# Parameters that change the price.
_TIERS = ("service_tier", "speed")
_NUMBERS = {"input", "output", "cached_input", "cache_write"}
_EXPECTED = "provider/model: [input, output], or {input, output} and perhaps cached_input, cache_write"


def price_for(settings: Calls, spec: ModelSpec) -> Price | None:
    """The price of the model of a role with these settings; None when it isn't known."""
    return price_of(spec, settings.mode, own=settings.price, extra=settings.extra)


def price_of(
    spec: ModelSpec,
    mode: str = "live",
    *,
    own: tuple[float, float] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Price | None:
    """The price of a model, live or in batches; zero for models on this machine; None when it isn't known.

    An address in the environment is a way to the provider: the model costs what it costs there, unless it is another
    provider's address. own: the role's setting; extra: its request parameters, of which some cost more.
    """
    if spec.provider not in ("openai", "anthropic"):
        return Price(0, 0, 0, origin="this machine")
    if own is not None:
        price = Price(own[0], own[0], own[1], origin="the setting")
        return _in_batch(price) if mode == "batch" else price
    if mine := _own_price(spec, mode):
        return mine
    model, full = _listed(spec)
    if model is None:
        free = full and spec.name.endswith(":free") and "openrouter.ai" in str(spec.base_url)
        return Price(0, 0, 0, origin="a free model") if free else None
    context = {name: str(extra[name]) for name in _TIERS if extra and name in extra} if full else {}
    live = _dearest(_offers(model, context))
    if mode != "batch":
        return live
    in_batch = _dearest(_offers(model, {**context, "processing": "batch"})) if full else live
    return _in_batch(live) if in_batch == live else _in_batch(in_batch, share=1.0)


def _in_batch(price: Price, share: float = _BATCH_SHARE) -> Price:
    # Providers differ on whether cached tokens stay cheaper in a batch: never counted as cheaper.
    input_, output, written = price.input * share, price.output * share, price.written * share
    tiers = tuple((tokens, _in_batch(tier, share)) for tokens, tier in price.tiers)
    return replace(price, input=input_, cached_input=input_, output=output, cache_write=written, tiers=tiers)


def priced(settings: Calls, spec: ModelSpec, role: str) -> dict[str, Any] | None:
    """The price of a role's model, as the manifest and the dry run have it; None for one on this machine."""
    price = price_for(settings, spec)
    if spec.provider not in ("openai", "anthropic"):
        return None
    known: dict[str, Any] = {"role": role, "model": str(spec), "mode": settings.mode, "from": "unknown"}
    if price is None:
        return known
    numbers = {"input": price.input, "cached_input": price.cached_input, "cache_write": price.written}
    dearest = {"output": price.output, "dearest_output": max(one.output for one in price.each)}
    # The filter's judge is called as the settings of the reward say.
    origin = f"{'reward' if role == 'judge' else role}.price" if settings.price is not None else price.origin
    return known | {name: round(usd, 6) for name, usd in (numbers | dearest).items()} | {"from": origin}


# -- the user's own table ---------------------------------------------------------------------------------------------


def _own_price(spec: ModelSpec, mode: str) -> Price | None:
    path = os.environ.get("FIGA_PRICES")
    if not path:
        return None
    try:
        prices, batch = _read(Path(path))
    except (ConfigError, OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path}: not a price table ({_EXPECTED}): {one_line(error, 1000)}") from None
    with_address = ModelSpec(spec.provider, spec.name, (base_url(spec) or ANTHROPIC_URL).rstrip("/"))
    price = prices.get(str(with_address)) or prices.get(f"{spec.provider}/{spec.name}")
    return _in_batch(price, batch.get(spec.provider, _BATCH_SHARE)) if price and mode == "batch" else price


def _read(path: Path) -> tuple[dict[str, Price], dict[str, float]]:
    """A user's prices by model, and shares of the live price by provider that a batch costs."""
    content = yaml.safe_load(path.read_text("utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"expected entries, got {content!r}")
    date = content.pop("as_of", None) or datetime.fromtimestamp(path.stat().st_mtime, UTC).date()
    batch = {provider: float(share) for provider, share in (content.pop("batch", None) or {}).items()}
    if not all(0 <= share < math.inf for share in batch.values()):
        raise ValueError(f"batch: a share of the live price is a number from 0, got {batch}")
    entries = {**(content.pop("models", None) or {}), **content}
    origin = f"{path.name} (FIGA_PRICES), as of {date}"
    return {str(ModelSpec.parse(name)): _entry(name, entry, origin) for name, entry in entries.items()}, batch


def _entry(name: str, entry: Any, origin: str) -> Price:
    if isinstance(entry, list) and len(entry) == 2:
        entry = {"input": entry[0], "output": entry[1]}
    if not isinstance(entry, dict) or not {"input", "output"} <= entry.keys() <= _NUMBERS:
        raise ValueError(f"{name}: got {entry!r}")
    try:
        return Price(**{"cached_input": entry["input"], **entry}, origin=origin)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None


# -- public prices ----------------------------------------------------------------------------------------------------


def _listed(spec: ModelSpec) -> tuple["ModelInfo | None", bool]:
    """The model in the public data, and whether its own provider's list has it (or would have)."""
    # 1.6 MB of Python: only when a price is needed.
    from genai_prices.data_snapshot import get_snapshot

    snapshot = get_snapshot()
    try:
        provider = snapshot.find_provider(None, None, base_url(spec) or ANTHROPIC_URL)
    except LookupError:
        if spec.base_url is not None:
            return None, False
        provider = snapshot.find_provider(None, spec.provider, None)
    name = spec.name.removeprefix("models/").lower()
    for one in (name, _DATED.sub("", name)):
        model = provider.find_model(one, all_providers=snapshot.providers)
        if model and any(_values(offer, -1) for offer in _offers(model, {})):
            return model, any(model is own for own in provider.models)
    return None, True


def _offers(model: "ModelInfo", context: Mapping[str, str]) -> list["ModelPrice"]:
    """All prices that are in force at some hour of the day, and the one in force soon."""
    now = datetime.now(UTC)
    times = [*(now + timedelta(hours=hour) for hour in range(24)), now + _SOON]
    return list({repr(offer): offer for offer in (model.get_prices(time, context) for time in times)}.values())


def _dearest(offers: Sequence["ModelPrice"]) -> Price:
    values = (value for offer in offers for value in vars(offer).values())
    starts = sorted({tier.start for value in values for tier in getattr(value, "tiers", ())})
    prices = []
    for start in (-1, *starts):
        read = [numbers for offer in offers if (numbers := _values(offer, start))]
        input_, cached, output, written, request = (max(values) for values in zip(*read, strict=True))
        prices.append(Price(input_, cached, output, written, request))
    return replace(prices[0], tiers=tuple(zip(starts, prices[1:], strict=True)), origin=_data())


def _values(offer: "ModelPrice", start: int) -> tuple[float, float, float, float, float] | None:
    """Input, cached input, output, cache write and, in dollars, a request, for prompts above `start` tokens."""

    def at(name: str) -> float | None:
        value: Any = getattr(offer, name)
        reached = [tier.price for tier in getattr(value, "tiers", ()) if tier.start <= start]
        price = reached[-1] if reached else getattr(value, "base", value)
        return None if price is None else float(price)

    input_, output = at("input_mtok"), at("output_mtok")
    if input_ is None or output is None:
        return None
    cached, written = at("cache_read_mtok"), at("cache_write_mtok")
    output = max(output, at("output_reasoning_mtok") or 0.0)
    request = (at("requests_kcount") or 0.0) / 1000
    return input_, input_ if cached is None else cached, output, input_ if written is None else written, request


@cache
def _data() -> str:
    """The public data by name: its package's version, and the date of the newest price in it."""
    from genai_prices.data_snapshot import get_snapshot

    today = datetime.now(UTC).date()
    models = [model for provider in get_snapshot().providers for model in provider.models]
    conditional = [one for model in models if isinstance(model.prices, list) for one in model.prices]
    dates = {getattr(one.constraint, "start_date", None) for one in conditional}
    newest = max((date for date in dates if date and date <= today), default=None)
    return f"genai-prices {version('genai-prices')}" + (f", as of {newest}" if newest else "")
