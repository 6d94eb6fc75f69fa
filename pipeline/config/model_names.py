"""How a model is named on the command line: `provider/model[@base_url]`."""

import os
import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from pipeline.errors import ConfigError
from pipeline.text import did_you_mean

PROVIDERS = ("openai", "anthropic", "local", "hf")
# Reward models alone; the last three are servers, and need an address.
SERVERS = ("vllm", "openrlhf", "http")
SCORERS = ("hf", *SERVERS)
OPENAI_URL = "https://api.openai.com/v1"
ANTHROPIC_URL = "https://api.anthropic.com"


@dataclass(frozen=True)
class ModelSpec:
    """A model and who serves it. `base_url` is None for the provider's own address."""

    provider: str
    name: str
    base_url: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """`openai/my-model@http://host:8000/v1` → ModelSpec. Raises ConfigError."""
        # First, so that no other message repeats the password.
        if re.search(r"//[^/]*@|@[^@/]*:[^@/]*@(?!https?://)", text):
            raise ConfigError("a model's address must not hold a password: keys live in the environment alone")
        provider, slash, rest = text.strip().partition("/")
        name, at, url = _split(rest)
        if provider not in (*PROVIDERS, *SERVERS):
            expected = f"expected one of {', '.join(PROVIDERS)} in provider/model"
            near = did_you_mean(provider, (*PROVIDERS, *SERVERS))
            raise ConfigError(f"unknown model provider in {text!r}: {expected}{near}")
        if not slash or not name:
            raise ConfigError(f"model {text!r}: expected provider/model[@base_url], for example openai/gpt-4o-mini")
        if at and not _is_address(url):
            raise ConfigError(f"model {text!r}: expected an address such as http://host:8000/v1 behind the @")
        if urlsplit(url).query and provider in ("openai", "anthropic"):
            raise ConfigError(
                "a model's address must not have a query, where keys tend to be: they live in the environment alone"
            )
        return cls(provider, name, url.rstrip("/") if at else None)

    def __str__(self) -> str:
        return f"{self.provider}/{self.name}" + (f"@{self.base_url}" if self.base_url else "")


def _split(rest: str) -> tuple[str, str, str]:
    """Name, @ and address: the address is behind the last `@http`, as names may hold an @ too.

    >>> _split("@cf/meta/llama@https://host/v1")
    ('@cf/meta/llama', '@', 'https://host/v1')
    """
    name, at, url = rest.rpartition("@http")
    if at:
        return name, "@", f"http{url}"
    name, at, url = rest.rpartition("@")
    # An address without http://.
    return (name, at, url) if at and re.search(r"://|^[\w.-]+:\d+(/|$)|^localhost|/v1/?$|^$", url) else (rest, "", "")


def base_url(spec: ModelSpec) -> str | None:
    """Where the calls go; None is Anthropic's own address or this machine. Raises ConfigError."""
    if spec.provider == "openai":
        return spec.base_url or _from_environment("OPENAI_BASE_URL") or OPENAI_URL
    if spec.provider == "anthropic":
        return spec.base_url or _from_environment("ANTHROPIC_BASE_URL")
    return None


def _from_environment(variable: str) -> str | None:
    url = os.environ.get(variable)
    if url and ("@" in urlsplit(url).netloc or not _is_address(url)):
        raise ConfigError(f"{variable}: expected an address such as http://host:8000/v1, without a password")
    return url.rstrip("/") if url else None


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # Reading the port checks it.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
