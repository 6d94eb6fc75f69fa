"""Stage inputs made by hand, and what came out in plain Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import schema
from pipeline.models.cost import Budget
from pipeline.models.factory import chat_model
from pipeline.models.journal import Journal
from pipeline.rewards.base import RewardModel
from pipeline.stages.table import BY_NAME
from pipeline.storage.stage_files import Reject, StageOutput, reject_table

STAGES = schema.STAGES


def columns_after(name: str) -> pa.Schema:
    """The columns of a stage's output, of the source's for "source": its input's, and those that it adds."""
    done = STAGES[1 : STAGES.index(name) + 1]
    return pa.schema([*schema.SOURCE, *(field for stage in done for field in BY_NAME[stage].adds)])


def row(number: int, **columns: Any) -> dict[str, Any]:
    """A row as the label stage's input could hold it; what `columns` names is of that value."""
    return {
        "id": f"{number:08x}{'0' * 8}",
        "sample_index": 0,
        "source": "test",
        "split": "train",
        "source_row": number,
        "messages": [{"role": "user", "content": f"Question {number}?"}],
        "reference": "The sun rises in the east.",
        "policy_model": "p",
        "initial": "The sun rises in the west.",
        "reward_model": "r",
        "reward_reference": 2.0,
        "reward_initial": -1.0,
        "reviser_model": "v",
        "diagnosis": "inaccuracy",
        "revised": "The sun rises in the east.",
    } | columns


def table_for(stage: str, rows: Sequence[dict[str, Any]]) -> pa.Table:
    """The input of `stage`."""
    shape = columns_after(STAGES[STAGES.index(stage) - 1])
    return pa.Table.from_pylist([{name: r.get(name) for name in shape.names} for r in rows], schema=shape)


def reasons(output: StageOutput) -> dict[int, str]:
    return {reject.index: reject.reason for reject in output.rejects}


def the_reject(output: StageOutput) -> Reject:
    (reject,) = output.rejects
    return reject


def check_accounting(stage: str, given: pa.Table, output: StageOutput) -> None:
    """Every row went on or left; survivors keep order and columns; rejects fit into the ledger."""
    assert output.rows.num_rows + len(output.rejects) == given.num_rows
    assert output.rows.schema.equals(columns_after(stage))
    left = {reject.index for reject in output.rejects}
    expected = [i for n, i in enumerate(given["id"].to_pylist()) if n not in left]
    assert output.rows["id"].to_pylist() == expected
    ledger = reject_table(stage, given, output.rejects)
    assert ledger["id"].to_pylist() == [given["id"][reject.index].as_py() for reject in output.rejects]
    assert set(ledger["stage"].to_pylist()) <= {stage}


class Counter:
    """An `OnProgress` that adds up."""

    def __init__(self) -> None:
        self.done = self.rejected = 0

    def __call__(self, done: int, rejected: int) -> None:
        self.done += done
        self.rejected += rejected

    @property
    def seen(self) -> tuple[int, int]:
        return self.done, self.rejected


class TinyReward(RewardModel):
    """A reward model that answers by rule, and keeps what it was asked."""

    name = digest = "tiny"

    def __init__(self, rule: Callable[[str], float]) -> None:
        self.rule = rule
        self.asked: list[tuple[list[dict[str, str]], str]] = []
        self.batches = 0

    def score(self, items: Any, references: Any) -> Any:
        self.batches += 1
        self.asked += items
        return np.array([self.rule(text) for _, text in items], np.float32)


def model_for(settings: Any, folder: Path) -> Any:
    """The chat model that `settings` name, with a journal of its own."""

    def no_file(name: str) -> Path:
        raise AssertionError(f"no local model is needed, and {name} was asked for")

    journal = Journal(folder / "journal.db")
    return chat_model(settings, journal=journal, budget=Budget(None, 0.0), local_file=no_file)
