"""A real published data set, made once a test session by the pipeline against a loopback server."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.loading import load_config
from pipeline.curate import curate, in_threads
from pipeline.run import shards
from tests.conftest import SAMPLE, Silent
from tests.loopback import LoopbackServer
from tests.loopback.behaviours import pipeline as behaviour


@pytest.fixture(scope="session")
def published(tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder. Every pair whose revision passes the filter is in it."""
    folder = tmp_path_factory.mktemp("published")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(SAMPLE.read_text("utf-8").splitlines(keepends=True)[:40]), "utf-8")
    with LoopbackServer(behaviour=behaviour) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", server.key or "none")
        config = load_config(
            flags={
                "source.input": str(rows),
                "policy.model": f"openai/policy@{server.openai_url}",
                "reviser.model": f"openai/reviser@{server.openai_url}",
                "labels.tokenizer": str(tiny_tokenizer),
                "output.dir": str(folder / "out"),
                "output.rows_per_file": 20,
                "selection.eta1": "off",
                "selection.eta2": "off",
                "selection.eta3": "off",
                "filter.min_reward_gain": -100,
            }
        )
        shards.forget_contexts()
        outcome = curate(config, in_threads, Silent())
        shards.forget_contexts()
    assert outcome.manifest["rows"]["published"] >= 24
    return outcome.out
