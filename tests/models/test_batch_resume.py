"""Batches and kill −9: whatever the moment, nothing that was sent is sent again, and nothing is lost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.models.batch.ledger import FILE, BatchLedger
from tests.loopback import LoopbackServer
from tests.loopback.batches import EXPIRED, BatchDesk
from tests.loopback.engine import WIRES
from tests.loopback.fixtures import loopback  # noqa: F401 - a fixture
from tests.models.asking import KEYS, address
from tests.models.batching import start_child, texts

Start = Callable[..., LoopbackServer]
CANARY = "sk-canary-5f3a9c1e7b"
COUNT = 12
PAGE = 120


@pytest.fixture(autouse=True)
def canary(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in KEYS.values():
        monkeypatch.setenv(variable, CANARY)


def kill_when(server: LoopbackServer, provider: str, folder: Path, moment: Callable[[], bool], most: int) -> None:
    """Start a run and kill it at the moment."""
    child = start_child(provider, address(server, provider), folder, COUNT, most)
    deadline = time.monotonic() + 60
    while not moment() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.01)
    child.kill()
    said, _ = child.communicate(timeout=20)
    assert child.returncode == -9, said


def finish(server: LoopbackServer, provider: str, folder: Path, most: int) -> list[str]:
    """Run to the end; what came of each text. No file and no line holds the key."""
    child = start_child(provider, address(server, provider), folder, COUNT, most)
    said, _ = child.communicate(timeout=60)
    assert child.returncode == 0, said
    assert CANARY not in said
    assert not [path for path in folder.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    return said.splitlines()


def named(folder: Path, count: int = 1) -> bool:
    """Whether the killed run has noted so many ids of the provider's."""
    return (folder / FILE).exists() and len(BatchLedger(folder / FILE).ids()) >= count


def test_killed_between_sending_and_collecting(loopback: Start, tmp_path: Path) -> None:  # noqa: F811
    desk = BatchDesk()
    desk.open.clear()
    server = loopback(extensions=desk.extensions, key=CANARY)
    kill_when(server, "openai", tmp_path, lambda: len(desk.jobs) == 1 and desk.jobs[0].looks > 1, COUNT)
    desk.open.set()
    assert finish(server, "openai", tmp_path, COUNT) == texts(COUNT)
    assert set(desk.sent.values()) == {1} and len(desk.jobs) == 1
    assert server.completed == COUNT


@pytest.mark.parametrize("provider", ["openai", pytest.param("anthropic", marks=pytest.mark.slow)])
def test_killed_between_two_result_files(loopback: Start, tmp_path: Path, provider: str) -> None:  # noqa: F811
    """OpenAI's output file and error file; Anthropic's results of two batches. Only what expired is sent again."""

    def outcome(request: object, attempt: int) -> str | None:
        return EXPIRED if attempt == 1 and str(getattr(request, "last_user", "")).endswith(("3", "8")) else None

    desk = BatchDesk(outcome=outcome, message=f"Your key {CANARY} is fine.")
    desk.second_file.clear()
    server = loopback(extensions=desk.extensions, key=CANARY)
    most = COUNT if provider == "openai" else COUNT // 2
    kill_when(server, provider, tmp_path, lambda: desk.reads == 2, most)
    assert server.completed == COUNT - 2
    desk.second_file.set()
    assert finish(server, provider, tmp_path, most) == texts(COUNT)
    assert sorted(desk.sent.values()) == [1] * (COUNT - 2) + [2, 2]
    assert sum(desk.sizes) == COUNT + 2 and server.completed == COUNT


@pytest.mark.parametrize("provider", ["openai", pytest.param("anthropic", marks=pytest.mark.slow)])
def test_killed_between_sending_and_the_id(loopback: Start, tmp_path: Path, provider: str) -> None:  # noqa: F811
    """The batch is found: by its note at OpenAI, by its size at Anthropic, where another one of that size is passed by."""
    desk = BatchDesk()
    desk.hold = "after"
    server = loopback(extensions=desk.extensions, key=CANARY)
    kill_when(server, provider, tmp_path, lambda: desk.held == 1, COUNT)
    assert not named(tmp_path)
    desk.hold = None
    take_someone_elses(desk, provider)
    assert finish(server, provider, tmp_path, COUNT) == texts(COUNT)
    assert len(desk.jobs) == 2 + PAGE
    assert Counter(desk.sent.values()) == {1: 2 * COUNT + PAGE}


def take_someone_elses(desk: BatchDesk, provider: str) -> None:
    """Another program's batches, newer than ours: one of the same size, and more than fit on a page of the list."""
    body = {"model": "model-1", "max_tokens": 5, "messages": [{"role": "user", "content": "Theirs"}]}
    lines = [(f"theirs-{index}", body, "") for index in range(COUNT)]
    for batch in (lines, *([(f"small-{index}", body, "")] for index in range(PAGE))):
        desk.take(WIRES[provider], batch, input_file_id="file-theirs", metadata={})


def test_killed_before_the_batch_was_made(loopback: Start, tmp_path: Path) -> None:  # noqa: F811
    """A file that was uploaded for it is deleted, and all is sent anew."""
    desk = BatchDesk()
    desk.hold = "before"
    server = loopback(extensions=desk.extensions, key=CANARY)
    kill_when(server, "openai", tmp_path, lambda: desk.held == 1, COUNT)
    desk.hold = None
    uploaded = list(desk.files)
    assert finish(server, "openai", tmp_path, COUNT) == texts(COUNT)
    assert set(uploaded) <= set(desk.deleted)
    assert desk.sizes == [COUNT] and set(desk.sent.values()) == {1}
