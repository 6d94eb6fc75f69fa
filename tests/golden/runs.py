"""The three runs, each with relative paths and a server at one port, as digests cover its address: the same bytes anywhere."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from pipeline.config.loading import load_config
from pipeline.curate import curate, in_threads
from pipeline.run import shards
from tests import pairs
from tests.conftest import SAMPLE, Silent
from tests.loopback import LoopbackServer
from tests.loopback.behaviours import pipeline as behaviour

# Other versions of these may write other bytes for the same table, or tokenise otherwise.
LIBRARIES = ("numpy", "pyarrow", "rapidfuzz", "tokenizers", "transformers")
PORT = 47_113
HASHES = Path(__file__).with_name("hashes.json")
_LIVE: dict[str, Any] = {
    "source.input": "rows.jsonl",
    "policy.model": "openai/policy",
    "policy.temperature": 0.3,
    "reviser.model": "openai/reviser",
    "labels.tokenizer": "tokenizer",
    "output.dir": "out",
    "source.shard_rows": 16,
    "filter.min_reward_gain": -100,
}
RUNS: dict[str, dict[str, Any]] = {
    "live": _LIVE,
    "pairs": {
        "source.name": "jsonl",
        "source.input": "pairs.jsonl",
        "labels.tokenizer": "tokenizer",
        "labels.granularity": "word",
        "policy.model": "local/smollm2-135m-instruct",
        "policy.temperature": 0.3,
        "output.dir": "out",
        "source.shard_rows": 16,
    },
    "samples": {**_LIVE, "policy.samples": 3, "policy.pick": "worst", "policy.temperature": 0.7},
}


def versions() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}


def run(name: str, tokenizer: Path, folder: Path) -> dict[str, str]:
    """sha256 of each published file and stage file of a run in the empty `folder`, digests of its stages and of the run."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(tokenizer, folder / "tokenizer")
    rows = SAMPLE.read_text("utf-8").splitlines(keepends=True)
    (folder / "rows.jsonl").write_text("".join(rows[:40]), "utf-8")
    lines = [_pair(row) for row in pairs.pairs(40)]
    (folder / "pairs.jsonl").write_text("".join(lines), "utf-8")
    with _server() as server, _environment(server), contextlib.chdir(folder):
        shards.forget_contexts()
        curate(load_config(flags=RUNS[name]), in_threads, Silent())
        shards.forget_contexts()
    return _hashes(folder / "out")


@retry(retry=retry_if_exception_type(OSError), wait=wait_fixed(0.5), stop=stop_after_delay(120), reraise=True)
def _listen(stack: contextlib.ExitStack) -> LoopbackServer:
    return stack.enter_context(LoopbackServer(behaviour, port=PORT))


@contextlib.contextmanager
def _server() -> Iterator[LoopbackServer]:
    """Waits while another checkout's tests hold the port."""
    with contextlib.ExitStack() as stack:
        yield _listen(stack)


def _pair(row: dict[str, Any]) -> str:
    names = ("initial", "revised", "reference")
    return json.dumps({"prompt": row["messages"][0]["content"], **{name: row[name] for name in names}}) + "\n"


@contextlib.contextmanager
def _environment(server: LoopbackServer) -> Iterator[None]:
    before = dict(os.environ)
    os.environ |= {"OPENAI_BASE_URL": server.openai_url, "OPENAI_API_KEY": server.key}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _hashes(out: Path) -> dict[str, str]:
    files = sorted([*out.glob("data/*.parquet"), *out.glob("rejected/*.parquet"), *out.glob("work/*/*.arrow")])
    found = {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    for path in sorted(out.glob("work/*/*.json")):
        if path.stem.isdigit():
            found[str(path.relative_to(out))] = json.loads(path.read_text("utf-8"))["digest"]
    found["plan"] = json.loads((out / "work" / "plan.json").read_text("utf-8"))["digest"]
    found["run"] = json.loads((out / "manifest.json").read_text("utf-8"))["run_digest"]
    return found
