"""A run of calls that is killed with -9 again and again: no answer is lost, none is paid twice but those in flight.

FIGA_KILLS=30 kills thirty times in 500 calls; the default is a few times in fewer.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.models.journal import Journal
from tests.conftest import ROOT, child_environment
from tests.loopback import LoopbackServer

KILLS = int(os.environ.get("FIGA_KILLS", "3"))
CALLS = 500 if KILLS > 10 else 120
WORKERS = 8
CANARY = "sk-canary-kill-0123456789"

ASKING = """
import sys
from pathlib import Path
from pipeline.models.journal import Answer, Journal
from tests.models.asking import ask_all, model_at
url, path, calls, workers = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
model = model_at(url, Journal(path), concurrency=workers)
texts = [f"question {index}" for index in range(calls)]
results = ask_all(model, texts, workers=workers)
assert [result.text for result in results if isinstance(result, Answer)] == texts
print("all answered", flush=True)
"""


def asking(server: LoopbackServer, path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ASKING, server.openai_url, str(path), str(CALLS), str(WORKERS)]
    environment = child_environment(OPENAI_API_KEY=CANARY)
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(server: LoopbackServer, calls: int, process: subprocess.Popen[str]) -> None:
    """Until the server has seen so many calls. The child starts slowly: only its calls tell how far it is."""
    deadline = time.monotonic() + 60
    while len(server.calls) < calls and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)


def test_kills_cost_at_most_the_calls_in_flight(tmp_path: Path) -> None:
    moments = random.Random(5)
    path, in_flight, answered = tmp_path / "journal.db", 0, 0
    with LoopbackServer(latency=0.02, key=CANARY) as server:
        for _ in range(KILLS):
            process = asking(server, path)
            wait_for(server, len(server.calls) + moments.randint(1, max(2, CALLS // KILLS)), process)
            process.kill()
            process.communicate(timeout=30)
            assert process.returncode == -signal.SIGKILL, "it was done before it could be killed"
            # Its last calls end at the server without anybody listening.
            while server.stats()["in_flight"]:
                time.sleep(0.01)
            if path.exists():
                journal = Journal(path)
                known = journal.calls().get("sample", 0)
                journal.close()
                assert known >= answered, "an answer was lost"
                answered = known
            lost = sum(call.billed for call in server.calls) - answered
            assert lost <= in_flight + WORKERS
            in_flight = max(in_flight, lost)
        last = asking(server, path)
        told, problems = last.communicate(timeout=120)
        assert (last.returncode, told.strip()) == (0, "all answered"), problems
        assert Journal(path).calls() == {"sample": CALLS}
        assert server.completed - CALLS <= KILLS * WORKERS
        assert sum(call.billed for call in server.calls) - CALLS == in_flight
        assert CANARY not in told + problems
    assert not any(CANARY.encode() in file.read_bytes() for file in tmp_path.iterdir())


@pytest.mark.parametrize("calls", [12])
def test_interrupted_calls_count_as_spent(tmp_path: Path, calls: int) -> None:
    """Ctrl-C: what was answered is kept, what was on its way may have been billed."""
    from pipeline.models.cost import Price
    from pipeline.models.event_loop import cancel_all, each_row
    from tests.models.asking import model_at, request

    with LoopbackServer(latency=lambda asked: 0.0 if "quick" in asked.last_user else 30.0, key=None) as server:
        journal = Journal(tmp_path / "journal.db")
        model = model_at(server.openai_url, journal, concurrency=calls, timeout_s=60)
        model.price = Price(10, 10, 10)
        texts = [f"{'quick' if index % 2 else 'slow'} {index}" for index in range(calls)]

        def stop_soon(rejected: bool) -> None:
            if journal.calls().get("sample", 0) == calls // 2 and len(server.calls) == calls:
                cancel_all()

        with pytest.raises(BaseException, match=r"^$"):
            each_row(texts, lambda text: model.ask("sample", request(text)), workers=calls, done=stop_soon)
        journal.close()
        again = Journal(tmp_path / "journal.db")
        assert again.calls() == {"sample": calls // 2}
        assert again.all_calls() == calls
        assert again.uncertain() == pytest.approx(again.spent() - again.money()["sample"][1])
        assert again.uncertain() >= calls // 2 * 200 * 10 / 1e6


CAPPED = """
import sys
from pathlib import Path
from pipeline.errors import BudgetReached
from pipeline.models.journal import Journal
from pipeline.models.cost import Budget, Price
from tests.models.asking import ask_all, model_at
url, cap = sys.argv[1], float(sys.argv[3])
journal = Journal(Path(sys.argv[2]))
model = model_at(url, journal, budget=Budget(cap, journal.spent()), concurrency=8)
model.price = Price(0, 0, 10)
try:
    # Each answer is as long as it may be: the most that a call can cost is what it does cost.
    ask_all(model, [f"{index:048}" for index in range(400)], workers=8, max_tokens=12)
except BudgetReached:
    print("budget reached", flush=True)
"""


def test_the_cap_holds_over_kills(tmp_path: Path) -> None:
    """Calls that were under way when a run was killed are billed, and nobody heard what they cost."""
    with LoopbackServer(latency=0.2, key=None) as server:

        def capped() -> subprocess.Popen[str]:
            command = [sys.executable, "-c", CAPPED, server.openai_url, str(tmp_path / "journal.db"), "0.012"]
            return subprocess.Popen(
                command, cwd=ROOT, env=child_environment(OPENAI_API_KEY=CANARY), stdout=subprocess.PIPE, text=True
            )

        def billed() -> float:
            return sum(call.usage.output_tokens for call in server.calls if call.usage) * 10 / 1e6

        for _ in range(2):
            process = capped()
            wait_for(server, len(server.calls) + 20, process)
            process.kill()
            process.communicate(timeout=30)
            while server.stats()["in_flight"]:
                time.sleep(0.01)
        assert sum(call.billed for call in server.calls) > sum(Journal(tmp_path / "journal.db").calls().values())
        assert 0 < billed() < 0.012
        last = capped()
        assert last.communicate(timeout=60)[0].strip() == "budget reached"
    assert billed() <= Journal(tmp_path / "journal.db").spent() + 1e-9 <= 0.012 + 2e-9
    assert billed() > 0.01
