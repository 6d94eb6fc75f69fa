"""Filter: keep a revision that is an answer, near the draft, better by the reward model and, on request, by a judge.

Cheap tests come first, the judge last. The pair is tokenised here, once: the distance is over the ids that are published.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.config.settings import FilterSettings
from pipeline.errors import RowReject
from pipeline.labels.columns import tokenize_pair
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.models.chat import OnProgress
from pipeline.rewards.base import RewardModel, Score, score_items
from pipeline.rewards.judge import RevisionJudge
from pipeline.stages.revision_checks import check_correction, check_text, rouge_l
from pipeline.storage.stage_files import RowResult, StageOutput, collect, row_results

# What a revision is judged by.
COLUMNS = ["messages", "reference", "initial", "initial_reasoning", "revised", "reward_initial"]


def filter_revisions(
    rows: pa.Table,
    settings: FilterSettings,
    tokenizer: LabelTokenizer,
    reward: RewardModel | None,
    on_progress: OnProgress,
    judge: RevisionJudge | None = None,
) -> StageOutput:
    """Adds the columns of `schema.FILTER`. Without a reward model `reward_revised` is null.

    Rejects: empty_revision, meta_talk, refusal, unchanged, copies_reference, contradicts_reference, too_similar, too_different,
    rouge_gain_too_small, reward_gain_too_small, bad_reward, judge_gain_too_small, judgement_unreadable, and those of
    `LabelTokenizer.tokenize` and `ChatModel.ask`.
    """
    tokens = [schema.INITIAL_TOKENS.name] if schema.INITIAL_TOKENS.name in rows.column_names else []
    table = rows.select([*COLUMNS, *tokens]).to_pylist()
    results = check_rows(table, settings, tokenizer, reward)
    rejected = sum(isinstance(result, RowReject) for result in results)
    if judge:
        on_progress(rejected, rejected)
        _gate_by_judge(table, results, judge, settings.min_judge_gain, on_progress)
    else:
        on_progress(len(results), rejected)
    added = schema.FILTER.append(schema.INITIAL_LOGPROBS) if tokens else schema.FILTER
    return collect(rows.drop_columns(tokens), added, results)


def check_rows(
    table: Sequence[dict[str, Any]], settings: FilterSettings, tokenizer: LabelTokenizer, reward: RewardModel | None
) -> list[RowResult]:
    """The values that the stage adds to each row with the values `COLUMNS`, or why the row leaves; the judge is not called."""

    def measured(row: dict[str, Any]) -> dict[str, Any]:
        check_text(row["revised"], row["initial"], row["reference"])
        tokens = tokenize_pair(row, tokenizer, settings)
        try:
            check_correction(row["revised"], row["initial"], row["reference"], settings)
        except RowReject as reject:
            raise reject.with_columns(edit_distance=tokens["edit_distance"]) from None
        # Whether the revision came nearer to the reference; no reward model takes part.
        gain = rouge_l(row["revised"], row["reference"]) - rouge_l(row["initial"], row["reference"])
        if (least := settings.min_rouge_gain) is not None and gain < least:
            too_small = RowReject("rouge_gain_too_small", rouge_gain=gain, at_least=least)
            raise too_small.with_columns(edit_distance=tokens["edit_distance"])
        return {**tokens, "reward_revised": None}

    results = row_results(measured, table)
    if reward is None:
        return results
    passed = [(index, result) for index, result in enumerate(results) if not isinstance(result, RowReject)]
    items = [(table[index]["messages"], table[index]["revised"]) for index, _ in passed]
    scores = score_items(reward, items, [table[index]["reference"] for index, _ in passed])
    for (index, result), score in zip(passed, scores, strict=True):
        results[index] = _gate_reward(result, score, table[index]["reward_initial"], settings)
    return results


# From rows with the values `COLUMNS` but `revised`, and each row's candidates, to an index per row.
Choose = Callable[[Sequence[dict[str, Any]], Sequence[Sequence[str]]], list[int]]


def chooser(
    settings: FilterSettings, tokenizer: LabelTokenizer, reward: RewardModel, judge: RevisionJudge | None = None
) -> Choose:
    """Chooses, of a row's revisions, the one that passes the filter with the highest reward; the first if none passes.

    With a judge the one with the highest gain by it, of equal gains that of higher reward. Of equal ones the earlier candidate
    wins. All candidates of all rows are scored together.
    """

    def choose(rows: Sequence[dict[str, Any]], candidates: Sequence[Sequence[str]]) -> list[int]:
        spread = [{**row, "revised": text} for row, texts in zip(rows, candidates, strict=True) for text in texts]
        results = enumerate(check_rows(spread, settings, tokenizer, reward))
        rewards = {n: result["reward_revised"] for n, result in results if not isinstance(result, RowReject)}
        # Whether a gain is large enough is for the filter stage to say, which finds these judgements in the journal.
        gains: list[float | RowReject] = [0.0] * len(rewards)
        if judge:
            gains = judge.gains([spread[n] for n in rewards], at_least=-1.0)
        # What can't be judged comes last.
        ranks = {
            n: (-2.0 if isinstance(gain, RowReject) else gain, rewards[n])
            for n, gain in zip(rewards, gains, strict=True)
        }
        chosen, start = [], 0
        for texts in candidates:
            passed = [n for n in range(start, start + len(texts)) if n in ranks]
            chosen.append(max(passed, key=ranks.__getitem__, default=start) - start)
            start += len(texts)
        return chosen

    return choose


def _gate_reward(result: dict[str, Any], revised: Score, initial: float, settings: FilterSettings) -> RowResult:
    """The result with R(X, Ỹ), when that is a number and gains enough on R(X, Ŷ)."""
    distance = result["edit_distance"]
    if isinstance(revised, RowReject):
        return revised.copy_with(score="reward_revised").with_columns(edit_distance=distance)
    if not math.isfinite(revised):
        return RowReject("bad_reward", reward_revised=str(revised)).with_columns(edit_distance=distance)
    gain, least = revised - initial, settings.min_reward_gain
    if least is not None and gain < least:
        reject = RowReject("reward_gain_too_small", reward_gain=gain, at_least=least)
        return reject.with_columns(edit_distance=distance, reward_revised=revised)
    return {**result, "reward_revised": revised}


def _gate_by_judge(
    table: Sequence[dict[str, Any]],
    results: list[RowResult],
    judge: RevisionJudge,
    at_least: float,
    on_progress: OnProgress,
) -> None:
    """Replace the results of rows that a judge doesn't prefer to their drafts by at least so much with rejects."""
    passed = [(index, result) for index, result in enumerate(results) if not isinstance(result, RowReject)]
    gains = judge.gains([table[index] for index, _ in passed], at_least, on_progress)
    for (index, result), gain in zip(passed, gains, strict=True):
        if isinstance(gain, RowReject):
            measured = {name: result[name] for name in ("edit_distance", "reward_revised")}
            results[index] = gain.with_columns(**measured)
