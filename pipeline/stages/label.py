"""Label: give every response token of both sequences an operation and a signed weight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.config import LabelSettings
from pipeline.labels import token_signals
from pipeline.labels.signals import PROMPT
from pipeline.stages.common import Report
from pipeline.storage.stagefile import Reject, StageOutput

IGNORE = -100  # the label that cross-entropy skips, in torch and everywhere else


def label(rows: pa.Table, settings: LabelSettings, eos_id: int, report: Report) -> StageOutput:
    """Turns the ids and words of the filter stage into the published label, weight and operation columns.

    Rejects: no_reward_gain, for signal reward_weighted alone: a pair that was not scored has no weights.
    """
    with np.errstate(invalid="ignore"):  # ∞ − ∞: not known, as is said below
        gains = rows["reward_revised"].to_numpy() - rows["reward_initial"].to_numpy()
    known = np.isfinite(gains)
    if settings.signal == "reward_weighted" and not known.all():
        rejects = [Reject(int(index), "no_reward_gain") for index in np.flatnonzero(~known)]
        report(len(rejects), len(rejects))
        return StageOutput(label(rows.filter(pa.array(known)), settings, eos_id, report).rows, rejects)
    prompts = pc.list_value_length(rows["prompt_input_ids"]).to_numpy()
    revised, initial = (_Sequences(rows[f"{side}_input_ids"], prompts) for side in ("revised", "initial"))
    revised_words, initial_words = (rows[f"{side}_words"].to_pylist() for side in ("revised", "initial"))
    signals = [
        token_signals(
            initial_ids,
            revised_ids,
            alpha=settings.alpha,
            beta=settings.beta,
            gamma=settings.gamma,
            eos_id=eos_id,
            eos_weight=settings.eos_weight,
            signal=settings.signal,
            granularity=settings.granularity,
            phrase_gap=settings.phrase_gap,
            initial_words=initial_words[i],
            revised_words=revised_words[i],
            reward_gain=gain,
        )
        for i, (initial_ids, revised_ids, gain) in enumerate(
            zip(initial.responses(), revised.responses(), gains.tolist(), strict=True)
        )
    ]
    columns = {
        "revised_labels": revised.lists(revised.responses(), IGNORE, np.int32),
        "initial_labels": initial.lists(initial.responses(), IGNORE, np.int32),
        "revised_weights": revised.lists([s.revised_weights for s in signals], 0, np.float32),
        "initial_weights": initial.lists([s.initial_weights for s in signals], 0, np.float32),
        "revised_ops": revised.lists([s.revised_ops for s in signals], PROMPT, np.int8),
        "initial_ops": initial.lists([s.initial_ops for s in signals], PROMPT, np.int8),
    }
    table = rows.drop_columns(["revised_words", "initial_words"])
    for column in schema.LABEL:
        table = table.append_column(column, columns[column.name].cast(column.type))
    report(rows.num_rows, 0)
    return StageOutput(table, [])


class _Sequences:
    """The sequences of one side as flat arrays: no list of Python numbers is made of a shard's tokens."""

    def __init__(self, column: pa.ChunkedArray, prompts: npt.NDArray[np.integer]) -> None:
        ids = column.combine_chunks()
        self._ids = ids.flatten().to_numpy()
        self._offsets = ids.offsets.to_numpy() - ids.offsets[0].as_py()
        starts = (self._offsets[:-1] + prompts).tolist()
        self._responses = [slice(start, end) for start, end in zip(starts, self._offsets[1:].tolist(), strict=True)]

    def responses(self) -> list[npt.NDArray[np.int32]]:
        """The response's ids of each row."""
        return [self._ids[place] for place in self._responses]

    def lists(self, responses: Sequence[npt.NDArray[np.generic]], fill: int, dtype: npt.DTypeLike) -> pa.ListArray:
        """One list a row: `fill` over the prompt, then the response's values."""
        values = np.full(len(self._ids), fill, dtype)
        for place, response in zip(self._responses, responses, strict=True):
            values[place] = response
        return pa.ListArray.from_arrays(pa.array(self._offsets), pa.array(values))
