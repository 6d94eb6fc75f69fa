"""A published data set made without any model: synthetic pairs, labelled and written by the project's own functions."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import __version__, schema
from pipeline.config.settings import CurationConfig, LabelSettings
from pipeline.dataset.writer import write_ledger, write_part
from pipeline.labels.columns import label_texts
from pipeline.labels.loading import describe, open_tokenizer
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.run import publish as publication
from pipeline.schema import row_id
from pipeline.storage.stage_files import Reject, reject_table
from tests.conftest import SAMPLE

_WORDS = sorted(set(re.findall(r"[A-Za-z']+[,.]?", SAMPLE.read_text("utf-8"))))


def pairs(count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Rows as they reach the label stage: a query, an answer, and the answer with a few words changed."""
    chance = random.Random(seed)
    for number in range(count):
        initial = chance.choices(_WORDS, k=chance.randint(8, 30))
        revised = list(initial)
        for place in chance.sample(range(len(revised)), chance.randint(1, 4)):
            revised[place] = chance.choice(["", f"{revised[place]} indeed", chance.choice(_WORDS) + "s"])
        messages = [{"role": "user", "content": f"{number}: {' '.join(chance.choices(_WORDS, k=6))}?"}]
        yield {
            "id": row_id("synthetic", "train", messages, 0),
            "sample_index": 0,
            "policy_model": "openai/policy",
            "reviser_model": "openai/reviser",
            "reward_model": "local/reward",
            "source": "synthetic",
            "split": "train",
            "source_row": number,
            "messages": messages,
            "reference": " ".join(chance.choices(_WORDS, k=12)),
            "initial": " ".join(initial),
            "revised": " ".join(filter(None, revised)) or "no",
            "diagnosis": "inaccuracy",
            "reward_reference": 1.0,
            "reward_initial": -chance.random(),
            "reward_revised": chance.random(),
        }


def data_set(
    out: Path, tokenizer: Path, rows: int = 100, *, rows_per_file: int = 50, seed: int = 0, **labels: Any
) -> Path:
    """Publish `rows` pairs, and one reject a file, in `out`."""
    own = open_tokenizer(str(tokenizer), LabelSettings(tokenizer=str(tokenizer), **labels))
    run = f"run of seed {seed}"
    metadata = publication.file_metadata(describe(own), run)
    made = list(pairs(rows, seed))
    parts = [made[start : start + rows_per_file] for start in range(0, rows, rows_per_file)] or [[]]
    entries = [write_part(out, n, len(parts), _labelled(part, own), metadata) for n, part in enumerate(parts)]
    source = pa.Table.from_pylist(made[: len(parts)], schema=schema.SOURCE)
    gone = reject_table("sample", source, [Reject(i, "truncated") for i in range(min(rows, len(parts)))])
    ledger = [write_ledger(out, "sample", [gone])] if gone.num_rows else []
    config = CurationConfig()
    publication.finish(
        out,
        {
            "format": "figa-pipeline",
            "version": __version__,
            "schema_version": schema.SCHEMA_VERSION,
            "run_digest": run,
            "rows": {"read": rows + gone.num_rows, "published": rows, "rejected": gone.num_rows},
            "funnel": [
                {
                    "stage": stage,
                    "in": rows if stage not in ("source", "sample") else rows + gone.num_rows,
                    "out": rows + gone.num_rows if stage == "source" else rows,
                    "rejected": {"truncated": gone.num_rows} if stage == "sample" and gone.num_rows else {},
                }
                for stage in schema.STAGES
            ],
            "source": dict.fromkeys(("name", "resolved", "revision", "split", "licence"), "synthetic"),
            "models": {role: {"name": role} for role in ("policy", "reviser", "reward")},
            "thresholds": {"eta1": 0.0, "eta2": 0.0, "eta3": 0.0},
            "labels": describe(own),
            "settings": config.model_dump(mode="json"),
            "calls": {},
            "cost_usd": 0.0,
            "files": entries,
            "rejected_files": ledger,
        },
        own,
    )
    return out


def _labelled(rows: list[dict[str, Any]], tokenizer: LabelTokenizer) -> Iterator[pa.Table]:
    names = [name for name in schema.PUBLISHED.names if not rows or name in rows[0]]
    texts = pa.schema([schema.PUBLISHED.field(name) for name in names])
    for start in range(0, len(rows), 32):
        made = label_texts(pa.Table.from_pylist(rows[start : start + 32], schema=texts), tokenizer)
        assert not made.rejects
        yield made.rows
