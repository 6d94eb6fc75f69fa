"""Label: give every response token of both sequences an operation and a signed weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.config.settings import LabelSettings
from pipeline.labels.alignment import PROMPT, Responses, pairs_signals
from pipeline.stages.common import Report
from pipeline.storage.stage_files import Reject, StageOutput

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
    words = settings.granularity != "token"
    revised, initial = (_Sequences(rows, side, prompts, words=words) for side in ("revised", "initial"))
    signals = pairs_signals(
        initial.responses,
        revised.responses,
        alpha=settings.alpha,
        beta=settings.beta,
        gamma=settings.gamma,
        eos_id=eos_id,
        eos_weight=settings.eos_weight,
        signal=settings.signal,
        granularity=settings.granularity,
        phrase_gap=settings.phrase_gap,
        reward_gains=gains,
    )
    columns = {
        "revised_labels": revised.lists(revised.responses.ids, IGNORE),
        "initial_labels": initial.lists(initial.responses.ids, IGNORE),
        "revised_weights": revised.lists(signals.revised_weights, 0),
        "initial_weights": initial.lists(signals.initial_weights, 0),
        "revised_ops": revised.lists(signals.revised_ops, PROMPT),
        "initial_ops": initial.lists(signals.initial_ops, PROMPT),
    }
    table = rows.drop_columns(["revised_words", "initial_words"])
    for column in schema.LABEL:
        table = table.append_column(column, columns[column.name].cast(column.type))
    report(rows.num_rows, 0)
    return StageOutput(table, [])


class _Sequences:
    """The sequences of one side as flat arrays: no list of Python numbers is made of a shard's tokens."""

    def __init__(self, rows: pa.Table, side: str, prompts: npt.NDArray[np.integer], *, words: bool) -> None:
        ids, self._offsets = _flat(rows[f"{side}_input_ids"])
        lengths = np.diff(self._offsets)
        self._answered = np.arange(len(ids)) >= np.repeat(self._offsets[:-1] + prompts, lengths)
        starts = np.concatenate([[0], np.cumsum(lengths - prompts)])
        numbered = _flat(rows[f"{side}_words"])[0].astype(np.int64) if words else None
        self.responses = Responses(ids[self._answered], starts, numbered)

    def lists(self, values: npt.NDArray[Any], fill: int) -> pa.ListArray:
        """One list a row: `fill` over the prompt, then the values of its response."""
        spread = np.full(len(self._answered), fill, values.dtype)
        spread[self._answered] = values
        return pa.ListArray.from_arrays(pa.array(self._offsets), pa.array(spread))


def _flat(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """All values of a column of lists, and where each list begins; one more offset is the end."""
    lists = column.combine_chunks()
    return lists.flatten().to_numpy(), lists.offsets.to_numpy() - lists.offsets[0].as_py()
