"""A real server with the real SmolLM2, asked through the real client."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from openai import APIConnectionError, AuthenticationError, BadRequestError, OpenAI

from pipeline.errors import ModelUnavailable
from pipeline.models.factory import Replicas
from pipeline.models.keys import Access
from pipeline.models.local import server as serving
from pipeline.models.local.server import LocalServer, cores, serve
from pipeline.models.providers import OpenAIProvider
from pipeline.models.request import ChatRequest

ROOT = Path(__file__).resolve().parents[2]
STORY = {"role": "user", "content": "Write a long story about a cat."}


@pytest.fixture(scope="module")
def server(smollm2: Path) -> LocalServer:
    return serve(smollm2, context=512)


@pytest.fixture(scope="module")
def client(server: LocalServer) -> OpenAI:
    return OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0, timeout=60)


def test_answers_the_real_client_and_names_the_model_not_its_folder(server: LocalServer, client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=server.model, messages=[{"role": "user", "content": "Name a colour."}], max_tokens=12, temperature=0
    )
    assert answer.choices[0].message.content
    assert answer.usage
    assert answer.usage.completion_tokens <= 12
    assert answer.model == "smollm2-135m-instruct"


def test_nobody_gets_in_without_the_key(server: LocalServer) -> None:
    stranger = OpenAI(base_url=server.base_url, api_key="guess", max_retries=0)
    with pytest.raises(AuthenticationError):
        stranger.chat.completions.create(model="x", messages=[STORY], max_tokens=1)  # type: ignore[list-item]


def test_nothing_is_shifted_out_of_the_context(server: LocalServer, client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="exceeds the available context size"):
        client.chat.completions.create(model="x", messages=[{"role": "user", "content": "fruit " * 520}], max_tokens=1)
    answer = client.chat.completions.create(
        model="x",
        messages=[{"role": "user", "content": "fruit " * 440}],
        max_tokens=200,
        extra_body={"ignore_eos": True},
    )
    assert answer.usage
    assert answer.usage.total_tokens == 512
    assert answer.choices[0].finish_reason == "length"


def test_one_server_for_the_same_settings_also_from_many_threads(server: LocalServer, smollm2: Path) -> None:
    found: list[LocalServer] = []
    threads = [threading.Thread(target=lambda: found.append(serve(smollm2, context=512))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one is server for one in found] == [True] * 4


def test_the_same_seed_gives_the_same_text_in_any_order(smollm2: Path) -> None:
    """The promise without the prefix cache, over two processes of the server."""
    questions = ["Why is the sky blue?", "How do I boil an egg?", "Tell me about Rome."]
    texts: list[dict[str, str | None]] = []
    for order in (questions, questions[::-1]):
        server = LocalServer(smollm2, context=512)
        client = OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0)
        answers = {}
        for question in order:
            answer = client.chat.completions.create(
                model="x",
                messages=[{"role": "user", "content": question}],
                max_tokens=24,
                temperature=0.7,
                seed=5,
                extra_body={"cache_prompt": False},
            )
            answers[question] = answer.choices[0].message.content
        texts.append(answers)
        server.close()
    assert texts[0] == texts[1]


def test_over_shared_messages_too_the_text_does_not_depend_on_other_rows(smollm2: Path) -> None:
    """First calls about each row, whose instructions are in the cache, and later calls over the row's own prompt."""
    rules = [{"role": "system", "content": "You answer in one short sentence, and you are kind. " * 4}]
    questions = ["Why is the sky blue?", "How do I boil an egg?", "Tell me about Rome."]
    cached: list[int] = []

    async def ask_all(order: list[str]) -> dict[str, list[str]]:
        server = LocalServer(smollm2, context=512)
        replicas = Replicas([OpenAIProvider("x", Access(server.base_url, server.api_key), 60.0)])
        answers: dict[str, list[str]] = {}
        for question in order:
            turns = [*rules, {"role": "user", "content": question}]
            for first in (True, False):
                params = {"seed": 5, "temperature": 0.7, "extra_body": {"cache_prompt": not first}}
                request = ChatRequest(turns, 24, params, shared=1 if first else 0)
                answer = await replicas.complete(request, lambda quotas: None)
                answers.setdefault(question, []).append(answer.text)
                cached.append(answer.cached_tokens)
                turns = [*turns, {"role": "assistant", "content": answer.text.split(" ", maxsplit=1)[0]}]
        await replicas.close()
        server.close()
        return answers

    texts = [asyncio.run(ask_all(order)) for order in (questions, questions[::-1], questions[1:])]
    assert texts[0] == texts[1]
    assert texts[2].items() <= texts[0].items()
    assert min(cached) > 30, "the instructions are read from the cache"


def test_a_server_that_died_is_replaced(smollm2: Path) -> None:
    first = serve(smollm2, context=256)
    first._child.kill()
    first._child.wait()
    with pytest.raises(APIConnectionError):
        OpenAI(base_url=first.base_url, api_key=first.api_key, max_retries=0).models.list()
    second = serve(smollm2, context=256)
    assert second is not first
    assert second.running
    second.close()
    second.close()


USE_IN_A_PROCESS = """
import os, signal, sys, threading, time
from pathlib import Path
from openai import OpenAI
from pipeline.models.local.server import serve
server = serve(Path(sys.argv[1]), context=2048)
client = OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0)
def ask():
    story = [{"role": "user", "content": "Write a long story."}]
    client.chat.completions.create(model="x", messages=story, max_tokens=1900, extra_body={"ignore_eos": True})
print(server._child.pid, flush=True)
if sys.argv[2] == "SIGINT":
    ask()
threading.Thread(target=lambda: ask(), daemon=True).start()
time.sleep(0.5 if sys.argv[2] == "exit" else 60)
"""


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize(("ending", "status"), [("exit", 0), ("SIGINT", 130), ("SIGTERM", -15), ("SIGKILL", -9)])
def test_it_ends_with_the_process_while_a_request_runs(smollm2: Path, ending: str, status: int) -> None:
    command = [sys.executable, "-c", USE_IN_A_PROCESS, str(smollm2), ending]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    child = int(process.stdout.readline())
    time.sleep(0.5)
    if ending != "exit":
        process.send_signal(getattr(signal, ending))
    _, noise = process.communicate(timeout=20)
    # Python itself turns an uncaught KeyboardInterrupt into death by SIGINT.
    assert process.returncode in ({status, -2} if ending == "SIGINT" else {status})
    assert "llama" not in noise.replace("server_process", "")
    deadline = time.monotonic() + 5
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(child)


def test_nothing_reaches_the_terminal(smollm2: Path, capfd: pytest.CaptureFixture[str]) -> None:
    LocalServer(smollm2, context=256).close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_neither_stops_nor_uses_the_parents_server(server: LocalServer) -> None:
    pid = os.fork()
    if pid == 0:
        ours = len(serving._servers)
        serving.close_all()
        os._exit(ours)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert server.running


def test_what_cannot_be_served_is_told_in_one_line(tmp_path: Path, smollm2: Path) -> None:
    text, half = tmp_path / "text.gguf", tmp_path / "half.gguf"
    text.write_text("hello")
    with smollm2.open("rb") as whole:
        half.write_bytes(whole.read(3_000_000))
    for path, reason in ((tmp_path / "none.gguf", "No such file"), (text, "not a GGUF model"), (half, "can't serve")):
        with pytest.raises(ModelUnavailable, match=reason) as caught:
            serve(path, context=256)
        assert "\n" not in str(caught.value)


def test_a_missing_runtime_names_the_extra(
    smollm2: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('No module named xllamacpp')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ModelUnavailable, match=r"pip install -e '\.\[local\]'"):
        serve(smollm2, context=256)


def test_cores_heed_affinity_and_never_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "Path", lambda _: Path("/nowhere"))
    for mine in (8, 1):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, mine=mine: set(range(mine)), raising=False)
        assert cores() == mine


def test_replicas_are_servers_of_their_own(smollm2: Path) -> None:
    first, second = (serve(smollm2, context=256, replica=number) for number in (0, 1))
    assert first.base_url != second.base_url
    assert serve(smollm2, context=256, replica=1) is second
