"""How the tests of batch APIs ask: the models of `factory.chat_model` in batch mode, with short waits.

As a program it is a process to be killed: `python -m tests.models.batching PROVIDER URL FOLDER COUNT MOST` asks COUNT texts
in batches of at most MOST, journal and ledger in FOLDER, and prints what came of each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config.settings import PolicySettings
from pipeline.errors import RowReject
from pipeline.models import factory
from pipeline.models.batch.anthropic import AnthropicBatches
from pipeline.models.batch.openai import OpenAIBatches
from pipeline.models.chat import ChatModel
from pipeline.models.cost import Budget
from pipeline.models.journal import Answer, Journal
from tests.conftest import ROOT, child_environment
from tests.models.asking import KEYS, ask_all


def model_in_batches(url: str, journal: Journal, provider: str, **settings: Any) -> ChatModel:
    quick = {"batch_poll_s": 0.05, "batch_quiet_s": 0.2, "attempts": 4, "timeout_s": 10, **settings}
    chosen = PolicySettings(
        model=f"{provider}/model-1@{url}",
        api_key_env=KEYS[provider] if os.environ.get(KEYS[provider]) else None,
        mode="batch",
        **quick,
    )
    return factory.chat_model(chosen, journal=journal, budget=Budget(None, journal.spent()), local_file=Path)


def texts(count: int) -> list[str]:
    return [f"Question {index}" for index in range(count)]


def ask_together(model: ChatModel, asked: Sequence[str], max_tokens: int = 200) -> list[Answer | RowReject]:
    return ask_all(model, asked, workers=model.concurrency, max_tokens=max_tokens)


def said(results: Sequence[Answer | RowReject]) -> list[str]:
    return [result.text if isinstance(result, Answer) else result.reason for result in results]


def start_child(provider: str, url: str, folder: Path, count: int, most: int = 50_000) -> subprocess.Popen[str]:
    arguments = [provider, url, str(folder), str(count), str(most)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.models.batching", *arguments],
        cwd=ROOT,
        env=child_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def main() -> None:
    provider, url, folder, count, most = sys.argv[1:]
    OpenAIBatches.most_requests = AnthropicBatches.most_requests = int(most)
    model = model_in_batches(url, Journal(Path(folder) / "journal.db"), provider)
    for result in ask_together(model, texts(int(count))):
        print(result.reason if isinstance(result, RowReject) else result.text)


if __name__ == "__main__":
    main()
