"""Pushing to a loopback Hub: what is sent, what is not, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import pairs
from tests.conftest import ROOT, child_environment
from tests.push_server import PushHub

REPO = "somebody/pairs"


@pytest.fixture
def out(tiny_tokenizer: Path, tmp_path: Path) -> Path:
    made = pairs.data_set(tmp_path / "out", tiny_tokenizer, 20, rows_per_file=10)
    (made / "work").mkdir()
    (made / "work" / "journal.db").write_bytes(b"what was paid for")
    (made / "notes.txt").write_text("mine")
    return made


def push(out: Path, url: str, *arguments: str, token: str = "hf_right") -> subprocess.CompletedProcess[str]:
    # The Hub's address is read when its client is imported.
    environment = child_environment(
        HF_ENDPOINT=url, HF_TOKEN=token, HF_HUB_DISABLE_XET="1", HF_HUB_OFFLINE="0", HF_HUB_DISABLE_TELEMETRY="1"
    )
    command = [sys.executable, "-m", "pipeline.push", str(out), REPO, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60, check=False)


def test_sends_what_the_manifest_names_and_nothing_else(out: Path) -> None:
    old = {"data/train-00000-of-00009.parquet": b"old", "LICENSE": b"kept"}
    with PushHub(REPO, dict(old), "hf_right") as hub:
        done = push(out, hub.url, "--private")
        assert done.returncode == 0, done.stderr
        assert f"sent  {hub.url}/datasets/{REPO}/commit/" in done.stdout
    names = {
        "manifest.json",
        "README.md",
        "report.html",
        *(f"data/train-0000{n}-of-00002.parquet" for n in (0, 1)),
        "rejected/sample.parquet",
    }
    assert set(hub.files) == names | {"LICENSE"} and hub.deleted == ["data/train-00000-of-00009.parquet"]
    assert all(hub.files[name] == (out / name).read_bytes() for name in names)
    assert hub.private is True and hub.commits == 1


def test_dry_run_and_a_damaged_file_send_nothing(out: Path) -> None:
    with PushHub(REPO, {}, "hf_right") as hub:
        dry = push(out, hub.url, "--dry-run")
        assert dry.returncode == 0 and "data/train-00000-of-00002.parquet" in dry.stdout
        file = out / "data" / "train-00001-of-00002.parquet"
        file.write_bytes(file.read_bytes()[:-1] + b"x")
        refused = push(out, hub.url)
    assert refused.returncode == 1 and "train-00001-of-00002" in refused.stderr and "nothing was sent" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert hub.commits == 0 and hub.private is None and not hub.files


def test_a_wrong_token_is_one_line_without_the_token(out: Path) -> None:
    with PushHub(REPO, {}, "hf_right") as hub:
        refused = push(out, hub.url, token="hf_wrong")
    assert refused.returncode == 2 and "set HF_TOKEN" in refused.stderr
    assert "hf_wrong" not in refused.stderr + refused.stdout and "Traceback" not in refused.stderr
