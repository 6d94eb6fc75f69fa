"""The label columns of pairs: token ids from texts, labels and weights from token ids, or both in one go.

The filter stage calls `tokenize_pair`, the label stage `label_columns`; `verify` and `relabel` call `label_texts`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rapidfuzz.distance import Levenshtein

from pipeline import schema
from pipeline.config.settings import FilterSettings, LabelSettings
from pipeline.errors import RowReject
from pipeline.labels.alignment import PROMPT, token_signals
from pipeline.labels.logprobs import align
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.storage.stage_files import StageOutput, collect, row_results

IGNORE = -100  # the label that cross-entropy skips, in torch and everywhere else
# The distance gate was applied by the run that published a pair; only a pair without any edit has no labels at all.
ANY_DISTANCE = FilterSettings(min_distance=0, max_distance=1)
# The columns that the label stage needs of the filter stage, and that are not published.
_WORDS = ["revised_words", "initial_words"]
# The settings that `token_signals` takes.
_WEIGHING = {"alpha", "beta", "gamma", "eos_weight", "signal", "granularity", "phrase_gap"}
LABELS = [*(name for name in schema.TOKENS.names if name not in _WORDS), *schema.LABEL.names]


def tokenize_pair(row: dict[str, Any], tokenizer: LabelTokenizer, gate: FilterSettings) -> dict[str, Any]:
    """The columns of `schema.TOKENS` for a row with messages, initial and revised, and perhaps initial_reasoning.

    Raises RowReject: unchanged, too_similar, too_different, and those of `LabelTokenizer.tokenize`.
    """
    initial, revised = tokenizer.tokenize(
        row["messages"], row["initial"], row["revised"], reasoning=row.get("initial_reasoning")
    )
    distance = Levenshtein.normalized_distance(initial.response_ids, revised.response_ids)
    if distance == 0:
        raise RowReject("unchanged").with_columns(edit_distance=0.0)
    if distance <= gate.min_distance:
        raise RowReject("too_similar", above=gate.min_distance).with_columns(edit_distance=distance)
    if distance > gate.max_distance:
        raise RowReject("too_different", at_most=gate.max_distance).with_columns(edit_distance=distance)
    words = tokenizer.settings.granularity != "token"
    given = row.get("initial_tokens")
    logprobs = align(given, row["initial"], initial) if given else None
    return {
        "edit_distance": distance,
        "overlong": max(len(initial.ids), len(revised.ids)) > tokenizer.settings.max_length,
        "prompt_input_ids": revised.ids[: revised.prompt_length],
        "revised_input_ids": revised.ids,
        "initial_input_ids": initial.ids,
        "revised_words": revised.words if words else [],
        "initial_words": initial.words if words else [],
        "initial_logprobs": logprobs,
    }


def label_columns(rows: pa.Table, settings: LabelSettings, eos_id: int) -> StageOutput:
    """Replace the words of the filter stage by the columns of `schema.LABEL`.

    Rejects: no_reward_gain, for signal reward_weighted alone: a pair without finite rewards has no weights.
    """
    tokens = {name: rows[name].to_numpy() for name in schema.TOKENS.names}
    pairs = [dict(zip(tokens, values, strict=True)) for values in zip(*tokens.values(), strict=True)]
    results = row_results(lambda pair, gain: _labels(pair, gain, settings, eos_id), pairs, _gains(rows))
    return collect(rows.drop_columns(_WORDS), schema.LABEL, results)


def label_texts(rows: pa.Table, tokenizer: LabelTokenizer, gate: FilterSettings = ANY_DISTANCE) -> StageOutput:
    """The published table of rows with texts and rewards. Rejects: those of `tokenize_pair` and `label_columns`."""

    def labelled(texts: dict[str, Any], gain: float) -> dict[str, Any]:
        pair = tokenize_pair(texts, tokenizer, gate)
        # Log-probs are those of the tokens that they came with.
        if texts.get("initial_input_ids") == pair["initial_input_ids"]:
            pair["initial_logprobs"] = texts["initial_logprobs"]
        return pair | _labels(pair, gain, tokenizer.settings, tokenizer.eos_id)

    rows = schema.complete(rows)
    names = ["messages", "initial", "initial_reasoning", "revised", "initial_logprobs", "initial_input_ids"]
    texts = rows.select([name for name in names if name in rows.column_names]).to_pylist()
    labels = [*LABELS, "initial_logprobs"]
    unlabelled = rows.drop_columns([name for name in labels if name in rows.column_names])
    added = pa.schema([schema.PUBLISHED.field(name) for name in labels])
    output = collect(unlabelled, added, row_results(labelled, texts, _gains(rows)))
    return replace(output, rows=output.rows.select(schema.PUBLISHED.names).cast(schema.PUBLISHED))


def _gains(rows: pa.Table) -> npt.NDArray[np.floating]:
    """R(Ỹ) − R(Ŷ) of each row, NaN where a reward is missing. Shape (rows,)."""
    with np.errstate(invalid="ignore"):  # ∞ − ∞ is NaN
        gains: npt.NDArray[np.floating] = rows["reward_revised"].to_numpy() - rows["reward_initial"].to_numpy()
    return gains


def _labels(pair: Mapping[str, Any], gain: float, settings: LabelSettings, eos_id: int) -> dict[str, Any]:
    """The columns of `schema.LABEL` for one pair with the columns of `schema.TOKENS`. Raises RowReject."""
    if settings.signal == "reward_weighted" and not np.isfinite(gain):
        raise RowReject("no_reward_gain")
    prompt = len(pair["prompt_input_ids"])
    initial = np.asarray(pair["initial_input_ids"][prompt:], np.int32)
    revised = np.asarray(pair["revised_input_ids"][prompt:], np.int32)
    signals = token_signals(
        initial,
        revised,
        eos_id=eos_id,
        **settings.model_dump(include=_WEIGHING),
        initial_words=pair["initial_words"],
        revised_words=pair["revised_words"],
        reward_gain=gain,
    )

    def after_prompt(fill: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.concatenate([np.full(prompt, fill, values.dtype), values])

    return {
        "revised_labels": after_prompt(IGNORE, revised),
        "initial_labels": after_prompt(IGNORE, initial),
        "revised_weights": after_prompt(0, signals.revised_weights),
        "initial_weights": after_prompt(0, signals.initial_weights),
        "revised_ops": after_prompt(PROMPT, signals.revised_ops),
        "initial_ops": after_prompt(PROMPT, signals.initial_ops),
    }
