"""What the tests share: a loopback server, a tiny tokenizer, rows in hh-rlhf's shape, and runs against them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.loading import load_config
from pipeline.config.settings import CurationConfig
from pipeline.curate import curate, in_threads
from pipeline.run import shards
from tests.loopback import LoopbackServer, behaviours
from tests.loopback.fixtures import loopback  # noqa: F401 - a fixture

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "data" / "hh-rlhf-sample.jsonl"

# A shell's background job, as CI may be one, ignores Ctrl-C and would hand that on to the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distribute by file, as `--dist loadfile` does, but all of tests/flows to one process: they share a Prefect server."""
    from xdist.scheduler import LoadFileScheduling

    class OnePrefectServer(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return "tests/flows" if file.startswith("tests/flows/") else file

    return OnePrefectServer(config, log) if config.getvalue("dist") == "loadfile" else None


def train_tokenizer(folder: Path) -> Path:
    """Write a byte-level BPE tokenizer with a chat template, trained on the bundled sample, that transformers loads."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([SAMPLE.read_text("utf-8")], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>", chat_template=CHAT_TEMPLATE
    )
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def write_rows(path: Path) -> Path:
    """Write the first forty conversations of the bundled sample."""
    path.write_text("".join(SAMPLE.read_text("utf-8").splitlines(keepends=True)[:40]), "utf-8")
    return path


def against(server: LoopbackServer, rows: Path, tokenizer: Path, out: Path) -> dict[str, Any]:
    """The flags of a run of these rows whose models are the server."""
    return {
        "source.input": str(rows),
        "policy.model": f"openai/policy@{server.openai_url}",
        "policy.api_key_env": "OPENAI_API_KEY",
        "reviser.model": f"openai/reviser@{server.openai_url}",
        "reviser.api_key_env": "OPENAI_API_KEY",
        "labels.tokenizer": str(tokenizer),
        "output.dir": str(out),
        # The scripted texts are not what the embedded reward head was trained on: here it must not decide, nor must how
        # their first words sound beside the reference's.
        "filter.min_reward_gain": -100,
        "filter.reject_contradictions": False,
    }


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    """The first forty conversations of the bundled sample."""
    return write_rows(tmp_path / "rows.jsonl")


@pytest.fixture
def settings(
    loopback: Callable[..., LoopbackServer],  # noqa: F811
    tiny_tokenizer: Path,
    rows_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., CurationConfig]:
    """Make a configuration whose models are the loopback server; its `server` attribute is that server."""
    server = loopback(behaviours.pipeline)
    monkeypatch.setenv("OPENAI_API_KEY", server.key or "none")

    def make(out: str = "out", **flags: Any) -> CurationConfig:
        values = against(server, rows_file, tiny_tokenizer, tmp_path / out) | {"source.shard_rows": 16}
        return load_config(flags=values | {key.replace("__", "."): value for key, value in flags.items()})

    make.server = server  # type: ignore[attr-defined]
    return make


@pytest.fixture(scope="session")
def published(tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set that a run against a loopback server published, for tests that only read it: copy it to change it.

    Two files. Every pair whose revision passes the filter is in it.
    """
    folder = tmp_path_factory.mktemp("published")
    with LoopbackServer(behaviour=behaviours.pipeline) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", server.key or "none")
        values = against(server, write_rows(folder / "rows.jsonl"), tiny_tokenizer, folder / "out")
        off = {f"selection.eta{number}": "off" for number in (1, 2, 3)}
        config = load_config(flags=values | off | {"output.rows_per_file": 20})
        shards.forget_contexts()
        outcome = curate(config, in_threads, Silent())
        shards.forget_contexts()
    assert outcome.manifest["rows"]["published"] >= 24
    return outcome.out


def as_arguments(config: CurationConfig) -> list[str]:
    """The command line that gives this configuration."""
    dumped = config.model_dump(mode="json")
    return [
        part
        for section, values in dumped.items()
        for key, value in values.items()
        for part in ("--set", f"{section}.{key}={json.dumps(value)}")
    ]


def child_environment(**extra: str) -> dict[str, str]:
    """The environment for a child process that runs the project from this checkout."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **extra}


class Silent:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def download(self, what: str, done: int, total: int) -> None: ...

    def watching(self, context: object) -> Any:
        from contextlib import nullcontext

        return nullcontext()
