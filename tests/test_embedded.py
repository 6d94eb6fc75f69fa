"""A run on the real embedded policy: sampled by llama.cpp, tokenised as its GGUF says, revised by the loopback server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.config.settings import CurationConfig
from tests.models.real import smollm2
from tests.test_run import check_row, files, run

__all__ = ["smollm2"]


@pytest.mark.slow
def test_a_run_on_the_real_policy_publishes_and_repeats_exactly(
    settings: Callable[..., CurationConfig], smollm2: Path
) -> None:
    def config(out: str) -> CurationConfig:
        return settings(
            out,
            policy__model="local/smollm2-135m-instruct",
            policy__max_tokens=96,
            labels__tokenizer="policy",
            source__limit=16,
            selection__eta1="off",
            selection__eta2="off",
            selection__eta3="off",
        )

    first = run(config("first"))
    rows = first.manifest["rows"]
    assert rows["published"] >= 1 and rows["read"] == 16 == rows["published"] + rows["rejected"]
    assert first.manifest["models"]["policy"]["sha256"].startswith("b179c952")
    for row in pq.read_table(first.out / "data").to_pylist():
        check_row(row, first.context.tokenizer)  # type: ignore[union-attr]
    # Seeded answers of one-slot servers do not depend on what else is asked: another folder, the same bytes.
    assert files(run(config("second")).out) == files(first.out)
