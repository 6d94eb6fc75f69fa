"""`policy.logprobs=true`: from the server's answers to the published column, the report and `figa show`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline import open_dataset
from pipeline.cli.main import main
from pipeline.config.settings import CurationConfig
from pipeline.dataset.verify import verify
from tests.test_run import run


def test_log_probs_are_published_beside_the_label_tokens(
    settings: Callable[..., CurationConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run(settings("out", policy__logprobs=True)).out
    rows = open_dataset(out).to_table().to_pylist()
    known = []
    for row in rows:
        values = row["initial_logprobs"]
        assert len(values) == len(row["initial_input_ids"])
        assert not any(values[: len(row["prompt_input_ids"])]) and values[-1] is None
        known += [value for value in values if value is not None]
    # Each of the server's tokens has −1/8; one of the labels' covers one or more of them.
    assert known and set(np.mod(known, 0.125)) == {0.0} and max(known) == -0.125
    assert not list(verify(out).problems)
    assert "of the negative tokens" in (out / "report.html").read_text("utf-8")
    assert main(["show", str(out), "--limit", "1"]) == 0
    assert "the gate of 0.6 nats passes" in capsys.readouterr().err

    assert main(["relabel", str(out), "--out", str(tmp_path / "same"), "--beta", "1"]) == 0
    assert main(["relabel", str(out), "--out", str(tmp_path / "plain"), "--template", "plain"]) == 0
    same, plain = (
        open_dataset(tmp_path / name).to_table(["id", "initial_logprobs"]).to_pylist() for name in ("same", "plain")
    )
    assert same == [{name: row[name] for name in ("id", "initial_logprobs")} for row in rows]
    assert {row["initial_logprobs"] for row in plain} == {None}, "of other tokens"


def test_they_are_off_by_default(published: Path) -> None:
    table = pq.read_table(published / "data")
    assert table["initial_logprobs"].null_count == table.num_rows
    assert "negative tokens" not in (published / "report.html").read_text("utf-8")
