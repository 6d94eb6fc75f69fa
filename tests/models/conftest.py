"""Fixtures of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from tenacity import wait_none

from pipeline.models import retry
from pipeline.models.journal import Journal
from tests.loopback import LoopbackServer
from tests.models import odd
from tests.models.asking import KEY, KEYS
from tests.models.real import smollm2

__all__ = ["smollm2"]


@pytest.fixture
def quick_and_keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waits between tries, and a key for each provider."""
    monkeypatch.setattr(retry, "_backoff", wait_none())
    for variable in KEYS.values():
        monkeypatch.setenv(variable, KEY)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.db")


@pytest.fixture(scope="module")
def odd_server() -> Iterator[LoopbackServer]:
    """A server that says what `odd.told` tells it to."""

    def extend(app: web.Application, engine: object) -> None:
        app.router.add_route("*", "/odd/{path:.*}", odd.say)

    with LoopbackServer(extensions=[extend]) as server:
        yield server
