"""How the tests here ask: the models of `factory.chat_model`, so the real SDKs, at a loopback server."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config.settings import PolicySettings
from pipeline.errors import RowReject
from pipeline.models import factory
from pipeline.models.chat import ChatModel
from pipeline.models.cost import Budget
from pipeline.models.event_loop import each_row, run
from pipeline.models.journal import Answer, Journal
from pipeline.models.request import ChatRequest
from tests.loopback import LoopbackServer

PROVIDERS = ("openai", "anthropic")
KEY = "sk-loopback"
KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}


def address(server: LoopbackServer, provider: str) -> str:
    return server.openai_url if provider == "openai" else server.anthropic_url


def model_at(
    url: str,
    journal: Journal,
    provider: str = "openai",
    *,
    budget: Budget | None = None,
    concurrency: int = 1,
    attempts: int = 3,
    timeout_s: float = 10.0,
) -> ChatModel:
    settings = PolicySettings(
        model=f"{provider}/model-1@{url}",
        api_key_env=KEYS[provider] if os.environ.get(KEYS[provider]) else None,
        concurrency=concurrency,
        attempts=attempts,
        timeout_s=timeout_s,
    )
    return factory.chat_model(
        settings, journal=journal, budget=budget or Budget(None, journal.spent()), local_file=_no_file
    )


def _no_file(name: str) -> Path:
    raise AssertionError(f"asked for the file of {name}")


def request(text: str, max_tokens: int = 200, **params: Any) -> ChatRequest:
    return ChatRequest([{"role": "user", "content": text}], max_tokens, params)


def ask(model: ChatModel, text: str, max_tokens: int = 200, **params: Any) -> Answer:
    return run(model.ask("sample", request(text, max_tokens, **params)))


def ask_all(
    model: ChatModel, texts: Sequence[str], *, workers: int = 1, max_tokens: int = 200
) -> list[Answer | RowReject]:
    return each_row(texts, lambda text: model.ask("sample", request(text, max_tokens)), workers=workers)


def caught(model: ChatModel, text: str = "Hello there") -> Answer | Exception:
    """The answer or the exception."""
    try:
        return ask(model, text)
    except Exception as error:
        return error
