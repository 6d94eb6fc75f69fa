"""README's "With your own models", as written, at servers that refuse what today's providers refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.cli.main import main
from pipeline.run import shards
from tests.conftest import write_rows
from tests.loopback import LoopbackServer, behaviours, dialects

KEY = "sk-of-this-provider-alone"
# Model name, dialect, the variable that holds the key, and whether its setting has to name it.
SHAPES = {
    "gpt-5": ("openai/gpt-5-mini", dialects.gpt_5, "OPENAI_API_KEY", False),
    "anthropic": ("anthropic/claude-haiku-4-5", dialects.anthropic, "ANTHROPIC_API_KEY", False),
    "vllm": ("openai/org/my-sft-model@{url}", None, None, False),
    "openrouter": ("openai/anthropic/claude-sonnet-4.5@{url}", dialects.one_of_two, "OPENROUTER_API_KEY", True),
    "gemini": ("openai/models/gemini-3-flash@{url}", dialects.gemini, "GEMINI_API_KEY", True),
    "mistral": ("openai/mistral-small-latest@{url}", dialects.mistral, "MISTRAL_API_KEY", True),
    "litellm": ("openai/vertex_ai/claude-haiku@20251001@{url}", dialects.litellm, "LITELLM_KEY", True),
    "ollama": ("openai/llama3.1:8b@{url}", None, None, False),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_with_this_provider_as_policy_and_reviser(
    loopback: Callable[..., LoopbackServer],
    tiny_tokenizer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shape: str,
) -> None:
    model, dialect, variable, named = SHAPES[shape]
    server = loopback(behaviours.pipeline, dialect=dialect, key=KEY if variable else None)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, KEY)
    if named:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-provider")
    monkeypatch.setenv("OPENAI_BASE_URL", server.openai_url)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.anthropic_url)
    if "@{url}" in model:
        monkeypatch.delenv("OPENAI_BASE_URL")
    settings: dict[str, Any] = {"labels.tokenizer": tiny_tokenizer, "filter.min_reward_gain": -100}
    settings |= {f"selection.eta{number}": "off" for number in (1, 2, 3)}
    for role in ("policy", "reviser"):
        settings[f"{role}.model"] = model.replace("{url}", server.openai_url)
        settings |= {f"{role}.api_key_env": variable} if named else {}
    settings["policy.top_p"] = 0.9
    flags = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    rows, out = write_rows(tmp_path / "rows.jsonl"), tmp_path / "out"
    shards.forget_contexts()
    source = ["--source", "hh-rlhf", "--input", str(rows), "--limit", "12", "--out", str(out)]
    assert main(["build", *source, *flags, "--prefect", "off"]) == 0, capsys.readouterr().err
    ledger = [row for file in (out / "rejected").glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    assert not {"bad_request", "diagnosis_unreadable"} & {row["reason"] for row in ledger}
    assert sum(pq.read_metadata(file).num_rows for file in (out / "data").glob("*.parquet")) >= 4
    assert server.engine.keys_seen == {KEY if variable else "no-key"}
    refusals = [call for call in server.calls if call.status in (400, 422)]
    assert bool(refusals) == bool(dialect)
    assert len(refusals) <= 12, "only the probes are refused"
