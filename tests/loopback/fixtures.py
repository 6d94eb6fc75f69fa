"""`from tests.loopback.fixtures import loopback` in a test module or conftest: servers that stop with the test.

def test_something(loopback):
    server = loopback(policy, latency=0.1)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.loopback.behaviours import echo
from tests.loopback.chat import Behaviour
from tests.loopback.server import LoopbackServer


@pytest.fixture
def loopback() -> Iterator[Callable[..., LoopbackServer]]:
    """Starts a server; takes what `LoopbackServer` takes. More than one may run."""
    with ExitStack() as stack:

        def start(behaviour: Behaviour = echo, **settings: Any) -> LoopbackServer:
            return stack.enter_context(LoopbackServer(behaviour, **settings))

        yield start
