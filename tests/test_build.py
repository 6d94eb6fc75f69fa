"""The command line as a user meets it: in a child process, by its exit code and its one line of complaint."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config.settings import CurationConfig
from tests.conftest import ROOT, as_arguments, child_environment

Settings = Callable[..., CurationConfig]


def build(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line from the repository."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "build", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=child_environment(**environment),
        timeout=180,
        check=False,
    )


GOOD = json.dumps({"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: No."})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b'{"prompt": "x"}\n', "bad.jsonl:1"),
        (b"[1, 2]\n{}\n", "bad.jsonl"),
        (b"\x1f\x8b\x08\x00garbage", "gz"),
        (gzip.compress(GOOD.encode() * 50)[:60], "gz"),
        (b'{"chosen": "no markers", "rejected": "none"}\n', "Human:"),
    ],
    ids=["empty", "other-shape", "not-objects", "bad-gzip", "cut-gzip", "no-markers"],
)
def test_bad_input_is_one_line_and_exit_2(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / ("bad.jsonl.gz" if content[:2] == b"\x1f\x8b" else "bad.jsonl")
    path.write_bytes(content)
    done = build("--source", "hh-rlhf", "--input", str(path), "--out", str(tmp_path / "out"))
    assert_one_line(done, says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--source", "hh-rlfh"], "hh-rlhf"),
        (["--source", "hh-rlhf", "--input", "/no/such/file.jsonl"], "/no/such/file.jsonl"),
        (["--source", "hh-rlhf", "--set", "selection.eta1=high"], "selection.eta1"),
        (["--source", "hh-rlhf", "--set", "selection.eta1=q1.5"], "q1.5"),
        (["--source", "hh-rlhf", "--set", "reviser.modle=x"], "reviser.model"),
        (["--source", "hh-rlhf", "--set", "reviser.model=opneai/gpt-4o"], "openai"),
        (["--source", "hh-rlhf", "--set", "reviser.model=openai/gpt-4o"], "OPENAI_API_KEY"),
        (["--source", "hh-rlhf", "--set", "policy.model=local/smolm"], "smollm2"),
        (["--source", "hh-rlhf", "--set", "reward.model=openai/x"], "reward.model"),
        (["--source", "hh-rlhf", "--limit", "0"], "source.limit"),
        (["--source", "hh-rlhf", "--limit", "many"], "source.limit"),
        (["--source", "hh-rlhf", "--budget", "lots"], "run.budget_usd"),
        (["--source", "hh-rlhf", "--config", "/no/such.yaml"], "/no/such.yaml"),
        (["--source", "hh-rlhf", "--out", "/dev/null/out"], "/dev/null/out"),
        (["--source", "hh-rlhf", "--prefect", "server"], "Prefect"),
        (["--source", "jsonl"], "--input"),
        (["--source", "hh-rlhf", "--set", "labels.date=2024-02-30"], "labels.date"),
        (["--source", "hh-rlhf", "--out", "~nobody-of-that-name/out"], "~nobody-of-that-name"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(tmp_path: Path, arguments: list[str], says: str) -> None:
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "out")]
    done = build(*arguments, *out, OPENAI_API_KEY="", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert_one_line(done, says)


def assert_one_line(done: subprocess.CompletedProcess[str], says: str) -> None:
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and says in errors[0], done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_json_is_the_only_thing_on_standard_output(settings: Settings) -> None:
    done = build(*as_arguments(settings()), "--prefect", "off", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["rows"]["read"] == 40 == report["rows"]["published"] + report["rows"]["rejected"]
    assert all(Path(path).is_file() for path in [*report["files"], *report["rejected_files"], report["manifest"]])
    assert report["calls"] == len(settings.server.calls)  # type: ignore[attr-defined]
    again = build(*as_arguments(settings()), "--prefect", "off", "--json")
    assert json.loads(again.stdout) | {"calls": 0, "already_done": True} == json.loads(again.stdout)
    assert "nothing to do" in again.stderr


def test_dry_run_spends_nothing(settings: Settings, tmp_path: Path) -> None:
    done = build(*as_arguments(settings()), "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert [c["stage"] for c in plan["calls"]] == ["sample", "diagnose", "revise"]
    assert plan["calls"][0]["calls"] == 40 and plan["cost_usd"] is None
    assert not settings.server.calls  # type: ignore[attr-defined]
    assert not (tmp_path / "out").exists()


def test_hostile_text_reaches_the_terminal_inert(settings: Settings, rows_file: Path) -> None:
    hostile = "Why \x1b[31mred\x1b]0;title\x07? {{7*7}} <script> \u202e"
    row = {
        "chosen": f"\n\nHuman: {hostile}\n\nAssistant: Because.",
        "rejected": f"\n\nHuman: {hostile}\n\nAssistant: No.",
    }
    rows_file.write_text(json.dumps(row) + "\n", "utf-8")
    off = {f"selection__eta{i}": "off" for i in (1, 2, 3)}
    config = settings(**off, filter__min_reward_gain=-100, filter__max_distance=1)
    done = build(*as_arguments(config), "--prefect", "off")
    assert done.returncode == 0, done.stderr
    assert "1 published" in done.stdout
    assert not any(c in done.stdout for c in "\x1b\x07\u202e") and "<001b>" in done.stdout


def test_interrupt_is_130_and_resumable(settings: Settings) -> None:
    settings.server.engine.latency = 0.3  # type: ignore[attr-defined]
    arguments = [*as_arguments(settings(policy__concurrency=2)), "--prefect", "off"]
    child = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "build", *arguments],
        cwd=ROOT,
        env=child_environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 60
    while settings.server.completed < 6 and time.monotonic() < deadline:  # type: ignore[attr-defined]
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGINT)
    _, errors = child.communicate(timeout=20)
    assert child.returncode == 130, errors
    assert "run the same command again" in errors and "Traceback" not in errors
    settings.server.engine.latency = 0  # type: ignore[attr-defined]
    done = build(*arguments)
    assert done.returncode == 0, done.stderr
    keys = [call.key for call in settings.server.calls if call.completed]  # type: ignore[attr-defined]
    # At most the two calls in flight at the interrupt were asked for twice.
    assert len(keys) - len(set(keys)) <= 2


def test_budget_stops_with_exit_3_and_goes_on(settings: Settings, tmp_path: Path) -> None:
    config = settings()
    prices = tmp_path / "prices.yaml"
    price = "{input: 1000, cached_input: 500, output: 1000}"
    prices.write_text(
        f"as_of: 2026-01-01\nmodels:\n  {config.policy.model}: {price}\n  {config.reviser.model}: {price}\n", "utf-8"
    )
    arguments = [*as_arguments(config), "--prefect", "off", "--set", "policy.max_tokens=120"]
    stopped = build(*arguments, "--budget", "3", "--json", FIGA_PRICES=str(prices))
    assert stopped.returncode == 3, stopped.stderr
    told = json.loads(stopped.stdout)
    assert (told["exit_code"], told["stages"][0]["out"]) == (3, 40) and told["error"] in stopped.stderr
    assert "--budget" in stopped.stderr and "Traceback" not in stopped.stderr
    calls = settings.server.calls  # type: ignore[attr-defined]
    spent = sum(call.usage.total for call in calls) / 1000
    assert 0 < spent <= 3
    done = build(*arguments, "--budget", "1000", FIGA_PRICES=str(prices))
    assert done.returncode == 0, done.stderr
    keys = [call.key for call in calls]
    assert len(keys) == len(set(keys)), "nothing was paid for twice"


@pytest.mark.parametrize("address", ["http://127.0.0.1:abc/api", "http://127.0.0.1:{port}/api"])
def test_an_address_where_no_prefect_is_does_not_stop_a_run(settings: Settings, tmp_path: Path, address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            with other.accept()[0] as caller:
                caller.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

        threading.Thread(target=greet, daemon=True).start()
        url = address.format(port=other.getsockname()[1])
        done = build(*as_arguments(settings("o_[bold]x[/i]")), PREFECT_API_URL=url)
    assert done.returncode == 0, done.stderr
    assert "o_[bold]x[/i]/report.html" in done.stdout.replace("\n", "")


def test_a_reader_that_left_is_no_failure(settings: Settings) -> None:
    out = str(settings().out)
    run = ("build", *as_arguments(settings()), "--prefect", "off")
    for command, *arguments in run, ("status", out), ("verify", out), ("show", out):
        with subprocess.Popen(
            [sys.executable, "-m", "pipeline", command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=child_environment(),
        ) as process:
            process.stdout.close()  # type: ignore[union-attr]
            errors = process.stderr.read()  # type: ignore[union-attr]
        assert "Traceback" not in errors and "Exception" not in errors, command
        # What only prints has nothing left to do.
        assert process.returncode in ((0,) if command == "build" else (0, 130)), command
    assert (Path(out) / "manifest.json").exists()


def test_a_full_disk_behind_standard_output_is_one_line(settings: Settings) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", "status", str(settings().out.parent)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=child_environment(),
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "error: output can't be written: No space left on device\n")
