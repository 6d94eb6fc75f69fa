"""Whole runs with models that think, with nothing set: the same pairs as without thoughts, which are published beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cli.main import main
from pipeline.config.settings import CurationConfig
from pipeline.curate import Outcome, curate, in_threads
from pipeline.dataset.verify import verify
from pipeline.labels.columns import LABELS
from pipeline.models import adaptation
from pipeline.run import shards
from tests.conftest import Silent
from tests.loopback import behaviours
from tests.loopback.behaviours import thinking

Settings = Callable[..., CurationConfig]
ALL = {f"selection__eta{number}": "off" for number in (1, 2, 3)} | {"source__limit": 12}


def run(config: CurationConfig) -> Outcome:
    shards.forget_contexts()
    return curate(config, in_threads, Silent())


def table(out: Path) -> pa.Table:
    return pa.concat_tables(
        [pq.read_table(path).replace_schema_metadata() for path in sorted(out.glob("data/*.parquet"))]
    )


def set_spelling(settings: Settings, spelling: str | None) -> None:
    plain = behaviours.pipeline
    settings.server.engine.behaviour = thinking(plain, spelling) if spelling else plain  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("spelling", "flags"),
    [
        ("reasoning_content", {}),
        ("hidden", {"reviser__style": "edits"}),
        ("think", {"reviser__structured": False}),
        ("harmony", {}),
        # The prompt opens the thoughts: the probe finds that out.
        ("prompted", {}),
    ],
)
def test_the_same_pairs_as_without_thoughts(settings: Settings, spelling: str, flags: dict[str, Any]) -> None:
    judged = {
        "reward__model": settings().reviser.model,
        "reward__logprobs": False,
        "reward__api_key_env": "OPENAI_API_KEY",
    }
    flags = {**ALL, **judged, **flags}
    set_spelling(settings, None)
    plain = run(settings("plain", **flags))
    set_spelling(settings, spelling)
    thought = run(settings("thought", **flags))
    before, after = table(plain.out), table(thought.out)
    assert before.num_rows >= 6 and before.drop_columns(["initial_reasoning"]) == after.drop_columns(
        ["initial_reasoning"]
    )
    assert before["initial_reasoning"].null_count == before.num_rows
    assert after["initial_reasoning"].null_count == (after.num_rows if spelling == "hidden" else 0)
    # The next run, in a process that knows nothing, finds all of it in its journal.
    adaptation.adaptation_for.cache_clear()
    for stage in ("sample", "revise"):
        for path in (thought.out / "work" / stage).iterdir():
            path.unlink()
    (thought.out / "manifest.json").unlink()
    assert run(settings("thought", **flags)).calls == 0


def test_thoughts_as_context_in_a_run_a_relabelled_set_and_their_verification(
    settings: Settings, tmp_path: Path
) -> None:
    set_spelling(settings, "think")
    dropped = run(settings("dropped", **ALL)).out
    context = run(settings("context", **ALL, labels__reasoning="context")).out
    relabelled, back = tmp_path / "relabelled", tmp_path / "back"
    assert main(["relabel", str(dropped), "--out", str(relabelled), "--set", "labels.reasoning=context"]) == 0
    assert main(["relabel", str(context), "--out", str(back), "--set", "labels.reasoning=drop"]) == 0
    for out in (dropped, context, relabelled, back):
        assert verify(out).problems == []
    assert table(relabelled).select(LABELS) == table(context).select(LABELS) != table(dropped).select(LABELS)
    assert table(back).select(LABELS) == table(dropped).select(LABELS)
    formats = {
        name: main(["export", str(context), "--format", name, "--out", str(tmp_path / name)])
        for name in ("sequences", "dpo")
    }
    assert formats == {"sequences": 0, "dpo": 2}, "only sequences have a place for thoughts"
    for row in table(context).to_pylist():
        prompt = len(row["prompt_input_ids"])
        for side in ("revised", "initial"):
            assert row[f"{side}_labels"][:prompt] == [-100] * prompt and not any(row[f"{side}_weights"][:prompt])
            assert row[f"{side}_input_ids"][:prompt] == row["prompt_input_ids"]
