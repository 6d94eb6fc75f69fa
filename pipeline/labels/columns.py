"""Labels from stored texts alone: what `verify` compares with and `relabel` writes. No model is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.config.settings import FilterSettings
from pipeline.errors import RowReject
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.stages.common import collect
from pipeline.stages.filter import tokens
from pipeline.stages.label import label
from pipeline.storage.stage_files import StageOutput

# The gate was applied when the data set was made; only a pair without any edit has no labels at all.
ANY_DISTANCE = FilterSettings(min_distance=0, max_distance=1)
_TEXTS = ["messages", "initial", "revised"]
LABELS = [*(name for name in schema.TOKENS.names if not name.endswith("_words")), *schema.LABEL.names]


def label_texts(rows: pa.Table, tokenizer: LabelTokenizer, distance: FilterSettings = ANY_DISTANCE) -> StageOutput:
    """The published table of rows that have texts and rewards; label columns that they have are made anew.

    Rejects: unchanged, too_similar, too_different, and the tokenizer's too_long, special_token_in_text, template_refuses,
    template_alters_answer, token_across_boundary; for signal reward_weighted, no_reward_gain.
    """
    results: list[dict[str, Any] | RowReject] = []
    for row in rows.select(_TEXTS).to_pylist():
        try:
            results.append(tokens(row, tokenizer, distance))
        except RowReject as reject:
            results.append(reject)
    bare = rows.drop_columns([name for name in LABELS if name in rows.column_names])
    tokenized = collect(bare, schema.TOKENS, results)
    labelled = label(tokenized.rows, tokenizer.settings, tokenizer.eos_id, _silent)
    kept = [index for index, result in enumerate(results) if not isinstance(result, RowReject)]
    late = [replace(reject, index=kept[reject.index]) for reject in labelled.rejects]
    rejects = sorted([*tokenized.rejects, *late], key=lambda reject: reject.index)
    return StageOutput(labelled.rows.select(schema.PUBLISHED.names).cast(schema.PUBLISHED), rejects)


def _silent(done: int, rejected: int) -> None: ...
