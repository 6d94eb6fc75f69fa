"""The styles of revision on the same rows, through the real pipeline: output tokens, edit distance, reward gain, yield.

By default the reviser is the scripted one of the loopback server, which shows that the path works, and what an edit script
saves there; its texts mean nothing, so neither does their reward. `FIGA_STYLES_MODEL=local/qwen2.5-coder-1.5b-instruct` takes
the embedded policy and that reviser. `FIGA_STYLES_ROWS` is the number of source rows.

Output tokens are those of all answers but the diagnosis, which is common to the styles, a revised row. Edit distance and
reward gain are means over all rows that were revised, those that the filter rejects included; yield is the share of the
selected rows that is published. Drafts and diagnoses are the same in all styles, and asked once.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
from rapidfuzz.distance import Levenshtein

from pipeline.config.loading import load_config
from pipeline.config.settings import CurationConfig
from pipeline.curate import Outcome, curate, in_threads
from pipeline.rewards.base import score_items
from pipeline.run import shards
from pipeline.run.context import Context
from tests.benchmarks.measure import Figure
from tests.conftest import SAMPLE, Silent
from tests.labels.families import byte_level, fast
from tests.loopback import LoopbackServer, pipeline

STYLES = ("rewrite", "edits", "branches")


def run(*, quick: bool) -> list[Figure]:
    model = os.environ.get("FIGA_STYLES_MODEL")
    rows = int(os.environ.get("FIGA_STYLES_ROWS", "16" if quick or model else "112"))
    with tempfile.TemporaryDirectory() as name, LoopbackServer(behaviour=pipeline) as server:
        os.environ["OPENAI_API_KEY"] = os.environ.get("OPENAI_API_KEY") or server.key or "none"
        models = {"reviser.model": model} if model else _loopback(server, Path(name))
        figures = []
        for style in STYLES:
            out = Path(name) / style
            if style != STYLES[0]:
                begin_with_drafts_of(Path(name) / STYLES[0], out)
            config = load_config(
                flags={
                    "source.input": str(SAMPLE),
                    "source.limit": rows,
                    "reviser.style": style,
                    "output.dir": str(out),
                    **models,
                }
            )
            figures += (made := _figures(style, config))
            # An embedded reviser takes minutes a style: what is known is told at once.
            print("; ".join(f"{f.name} {f.value:.4g} {f.unit}".strip() for f in made), file=sys.stderr, flush=True)
        return figures


def _loopback(server: LoopbackServer, folder: Path) -> dict[str, Any]:
    fast(byte_level()).save_pretrained(folder / "tokenizer")
    return {
        "policy.model": f"openai/policy@{server.openai_url}",
        "policy.api_key_env": "OPENAI_API_KEY",
        "reviser.model": f"openai/reviser@{server.openai_url}",
        "reviser.api_key_env": "OPENAI_API_KEY",
        "labels.tokenizer": str(folder / "tokenizer"),
    }


def _figures(style: str, config: CurationConfig) -> list[Figure]:
    shards.forget_contexts()
    outcome = curate(config, in_threads, Silent())
    assert outcome.context
    outcome.context.journal.close()
    tokens = _answered(config.out)
    selected = next(step["out"] for step in outcome.manifest["funnel"] if step["stage"] == "select")
    revised = _revised(outcome)
    distances, gains = _distances_and_gains(outcome.context, revised)
    made = max(1, len(revised))
    notes = next(step for step in outcome.manifest["funnel"] if step["stage"] == "revise").get("notes", {})
    told = ", ".join(f"{count} {note}" for note, count in notes.items())
    return [
        Figure(f"{style}: output tokens a row", tokens / made, "tokens", target=f"{len(revised)} rows"),
        Figure(
            f"{style}: edit distance",
            fmean(distances or [0]),
            "",
            min(distances, default=None),
            max(distances, default=None),
            told,
        ),
        Figure(f"{style}: reward gain", fmean(gains or [0]), "", min(gains, default=None), max(gains, default=None)),
        Figure(f"{style}: yield", outcome.manifest["rows"]["published"] / max(1, selected), "of the selected"),
    ]


def _answered(out: Path) -> int:
    query = "SELECT total(json_extract(answer, '$.completion_tokens')) FROM answers WHERE stage = 'revise'"
    with closing(sqlite3.connect(out / "work" / "journal.db")) as db:
        return int(db.execute(query).fetchone()[0])


def begin_with_drafts_of(first: Path, out: Path) -> None:
    """The first style's journal but for its revisions: an edit script's rewrites count as its own."""
    (out / "work").mkdir(parents=True)
    journal = out / "work" / "journal.db"
    shutil.copy(first / "work" / "journal.db", journal)
    with closing(sqlite3.connect(journal, isolation_level=None)) as db:
        db.execute("DELETE FROM answers WHERE stage = 'revise'")


def _revised(outcome: Outcome) -> list[dict[str, Any]]:
    """The rows that left the revise stage."""
    files = sorted((outcome.out / "work" / "revise").glob("?????.arrow"))
    return [row for file in files for row in pa.ipc.open_file(file).read_all().to_pylist()]


def _distances_and_gains(context: Context, rows: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    distances = []
    for row in rows:
        initial, revised = context.tokenizer.tokenize(row["messages"], row["initial"], row["revised"])
        distances.append(Levenshtein.normalized_distance(initial.response_ids, revised.response_ids))
    assert context.reward
    items = [(row["messages"], row["revised"]) for row in rows]
    scores = score_items(context.reward, items, [row["reference"] for row in rows])
    gains = [score - row["reward_initial"] for score, row in zip(scores, rows, strict=True)]
    return distances, gains
