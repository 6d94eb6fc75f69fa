"""Label: give every response token of both sequences an operation and a signed weight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import schema
from pipeline.config import LabelSettings
from pipeline.labels import token_signals
from pipeline.labels.signals import PROMPT
from pipeline.stages.common import Report
from pipeline.storage.stagefile import StageOutput

IGNORE = -100  # the label that cross-entropy skips, in torch and everywhere else


def label(rows: pa.Table, settings: LabelSettings, eos_id: int, report: Report) -> StageOutput:
    """Turns the ids and words of the filter stage into the published label, weight and operation columns."""
    names = ["prompt_input_ids", "revised_input_ids", "initial_input_ids", "revised_words", "initial_words"]
    prompts, revised, initial, revised_words, initial_words = (rows[name].to_pylist() for name in names)
    gains = (rows["reward_revised"].to_numpy() - rows["reward_initial"].to_numpy()).tolist()
    signals = [
        token_signals(
            initial[i][len(prompt) :],
            revised[i][len(prompt) :],
            alpha=settings.alpha,
            beta=settings.beta,
            gamma=settings.gamma,
            eos_id=eos_id,
            signal=settings.signal,
            granularity=settings.granularity,
            phrase_gap=settings.phrase_gap,
            initial_words=initial_words[i],
            revised_words=revised_words[i],
            reward_gain=gains[i],
        )
        for i, prompt in enumerate(prompts)
    ]
    lengths = [len(prompt) for prompt in prompts]
    columns = {
        "revised_labels": _labels(revised, lengths),
        "initial_labels": _labels(initial, lengths),
        "revised_weights": _padded([s.revised_weights for s in signals], lengths, 0, np.float32),
        "initial_weights": _padded([s.initial_weights for s in signals], lengths, 0, np.float32),
        "revised_ops": _padded([s.revised_ops for s in signals], lengths, PROMPT, np.int8),
        "initial_ops": _padded([s.initial_ops for s in signals], lengths, PROMPT, np.int8),
    }
    table = rows.drop_columns(["revised_words", "initial_words"])
    for column in schema.LABEL:
        table = table.append_column(column, columns[column.name].cast(column.type))
    report(rows.num_rows, 0)
    return StageOutput(table, [])


def _labels(sequences: Sequence[list[int]], prompt_lengths: Sequence[int]) -> pa.ListArray:
    responses = [np.asarray(ids[n:], np.int32) for ids, n in zip(sequences, prompt_lengths, strict=True)]
    return _padded(responses, prompt_lengths, IGNORE, np.int32)


def _padded(
    responses: Sequence[npt.NDArray[np.generic]], prompt_lengths: Sequence[int], fill: int, dtype: npt.DTypeLike
) -> pa.ListArray:
    """One Arrow list a row: `fill` over the prompt, then the response's values. Built from one flat array."""
    flat = [part for values, n in zip(responses, prompt_lengths, strict=True) for part in (np.full(n, fill), values)]
    ends = np.cumsum([n + len(values) for values, n in zip(responses, prompt_lengths, strict=True)], dtype=np.int32)
    offsets = np.concatenate([np.zeros(1, np.int32), ends.astype(np.int32)])
    values = np.concatenate(flat).astype(dtype) if flat else np.empty(0, dtype)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
