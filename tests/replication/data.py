"""What is trained on, made by a run of the defaults on the questions of `tests/readings`; and what is held out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import resources
from pipeline.cli.main import main
from pipeline.sources import get

QUESTIONS = Path(__file__).parents[1] / "readings" / "questions.jsonl"


@dataclass(frozen=True, slots=True)
class Queries:
    """rows: {"messages", "reference", "rejected"}. The first `validation` choose learning rates, the others are reported."""

    rows: list[dict[str, Any]]
    validation: int


def make_set(out: Path, limit: int) -> None:
    """The data set at `out`. What is there already is kept, so a killed run goes on where it was."""
    source = ["--source", "jsonl", "--input", str(QUESTIONS), "--limit", str(limit)]
    if code := main(["build", *source, "--out", str(out), "--prefect", "off"]):
        raise SystemExit(f"making {out} ended with exit code {code}; the same command goes on")


def held_out(count: int, validation: int) -> Queries:
    """The first single questions of the bundled sample. None was trained on, and each has a better and a worse reply."""
    adapter = get("hh-rlhf")
    lines = (resources.folder("data") / "hh-rlhf-sample.jsonl").read_text("utf-8").splitlines()
    rows = [row for row in (adapter.parse(json.loads(line)) for line in lines) if len(row.messages) == 1]
    known = [{"messages": row.messages, "reference": row.reference, "rejected": row.rejected} for row in rows]
    return Queries(known[: validation + count], validation)
