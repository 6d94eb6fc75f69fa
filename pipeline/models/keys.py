"""Which API key goes to which address, and what the environment's proxies never see.

A key is sent only to the address that it belongs to: OPENAI_API_KEY to OpenAI or OPENAI_BASE_URL, ANTHROPIC_API_KEY likewise.
Any other address gets the key in the variable that its role names (`policy.api_key_env` and the like), or none.
"""

import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pipeline.config.model_names import ANTHROPIC_URL, OPENAI_URL, ModelSpec, base_url
from pipeline.errors import ConfigError, ProviderStopped
from pipeline.models.provider_errors import hide
from pipeline.text import one_line

_KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
_HOMES = {"openai": OPENAI_URL, "anthropic": ANTHROPIC_URL}
_ADDRESSES = {"openai": "OPENAI_BASE_URL", "anthropic": "ANTHROPIC_BASE_URL"}


@dataclass(frozen=True, slots=True)
class Access:
    """How an address is called. own: it is the provider's own, or the one that stands for it in the environment."""

    base_url: str | None
    api_key: str | None = field(repr=False)
    own: bool = False
    hint: str = ""

    def explained(self, failure: Exception, status: int | None) -> Exception:
        """The failure of a call; a refused key with the setting that names it."""
        refused = isinstance(failure, ProviderStopped) and status in (401, 403)
        return ProviderStopped(f"{failure}. {self.hint}") if refused else failure


def access(setting: str, spec: ModelSpec, named: str | None) -> Access:
    """The address of a model and its key. setting: the model's, for messages. Raises ConfigError."""
    hint = f"The key sent was that of {key_variable(spec, named)}"
    if not key_variable(spec, named):
        other = ", or filter.judge_api_key_env for the filter's judge" if setting == "reward.model" else ""
        hint = f"No key was sent to this address: set {_setting(setting)}=NAME, the environment variable with its key{other}"
    return Access(base_url(spec), read_key(setting, spec, named), key_variable(spec, None) is not None, hint)


def key_variable(spec: ModelSpec, named: str | None) -> str | None:
    """The variable whose key this model's address gets: the one that its role named, else the provider's at its own address."""
    if named or spec.provider not in _KEYS:
        return named
    own = {_origin(_HOMES[spec.provider]), _origin(os.environ.get(_ADDRESSES[spec.provider], ""))}
    return _KEYS[spec.provider] if _origin(base_url(spec) or _HOMES[spec.provider]) in own else None


def read_key(setting: str, spec: ModelSpec, named: str | None) -> str | None:
    """The key for this model; None where none is sent. Raises ConfigError. setting: the model's, for messages."""
    variable = key_variable(spec, named)
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        where = "" if named is None else f", which {_setting(setting)} names"
        raise ConfigError(f"{setting}: {spec} needs an API key: set {variable} in the environment{where}")
    check_key(setting, variable, key)
    hide(key)
    return key


def check_key(setting: str, variable: str, key: str) -> None:
    """Refuse a key that no HTTP header can carry. Raises ConfigError, which names the fault and not the key."""
    faults = {"a line break": "\r\n", "white space": " \t\x0b\x0c"}
    fault = next((name for name, characters in faults.items() if set(characters) & set(key)), None)
    at = next((n for n, character in enumerate(key, 1) if not "\x21" <= character <= "\x7e"), None)
    if at is None:
        return
    where = "at its end" if at > len(key.rstrip()) else f"at character {at} of {len(key)}"
    kind = fault or ("a control character" if key[at - 1].isascii() else "a character that is not ASCII")
    raise ConfigError(f"{setting}: the API key in {variable} holds {kind}, {where}: set it again without")


def _setting(setting: str) -> str:
    return "filter.judge_api_key_env" if setting == "filter.judge" else f"{setting.partition('.')[0]}.api_key_env"


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    with suppress(ValueError):
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return "", None, None


def is_loopback(url: str | None) -> bool:
    """Whether an address is this machine's own, which no proxy can reach."""
    host = (urlsplit(url or "").hostname or "").rstrip(".")
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        return address.is_loopback or address.is_unspecified
    return host == "localhost" or host.endswith(".localhost")


@contextmanager
def usable_proxy() -> Iterator[None]:
    """Creating a client reads the environment's proxies. Raises ConfigError for one that can't be used."""
    try:
        yield
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"the proxy in the environment (HTTPS_PROXY, ALL_PROXY) can't be used: {one_line(error)}"
        ) from None
