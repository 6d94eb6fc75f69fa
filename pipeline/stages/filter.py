"""Filter: keep a revision that is an answer, near the draft, and better by the reward model.

Cheap tests come first. The pair is tokenised here, once: the distance is over the ids that are published.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
from rapidfuzz.distance import LCSseq

from pipeline import schema
from pipeline.config.settings import FilterSettings
from pipeline.errors import RowReject
from pipeline.labels.columns import tokenize_pair
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.models.chat import OnProgress
from pipeline.rewards.base import RewardModel, Score, score_items
from pipeline.storage.stage_files import RowResult, StageOutput, collect, row_results

# A reviser that talks about its task instead of doing it. Each alternative needs a word of the task (a revised *response*,
# the draft that *omits*): "the draft of the contract" and "tips to improve your sleep" are ordinary answers.
_DONE = r"(?:revised|corrected|improved|edited|rewritten|updated|refined|polished|modified|revision|correction)"
_THING = r"(?:draft|response|answer|reply|version|text|message)"
_META = re.compile(
    rf"""
    # "Sure! Here's a corrected version": at the start, and not "… version of your essay"
    \A\W*(?:(?:sure|certainly|okay|ok|of\ course|absolutely|yes)\b\W+)?
        (?:here(?:['’]s|\ is|\ are)|below\ is|this\ is|the\ following\ is)\s+(?:\w+\s+){{0,3}}?
        (?:{_DONE}\s+(?:\w+\s+){{0,2}}?{_THING}|(?:draft|response|answer|reply)\s+with\s+(?:\w+\s+)?(?:corrections|changes|edits))\b
        (?!\s+of\s+(?!(?:the|your|this)\s+(?:draft|response|answer|reply)))
    # "I have revised the draft": at the start of a line
    | ^\W*i(?:['’]ve|\ have)?\s+(?:\w+\s+)?{_DONE}\s+(?:the|your|this)\s+(?:\w+\s+)?(?:draft|response|answer|reply)\b(?!\s+of\b)
    # "Revised response:" as a heading
    | ^\W*(?:the\s+)?{_DONE}\s+(?:draft|response|answer|reply|version)\W{{0,3}}:
    | \b(?:revised|corrected|improved|rewritten|original)\s+(?:draft|response|reply)\b(?!\s+(?:of|to)\b)
    | \breference\s+(?:answer|response|reply)\b
    | \bthe\s+draft(?:\s+(?:response|answer|reply))?\s+(?:\w+ly\s+)?
        (?:omits|omitted|lacks|lacked|leaves\s+out|left\s+out|fails\s+to|failed\s+to|misstates|misstated)\b
    | \bthe\s+draft\s+(?:incorrectly|wrongly|mistakenly)\b
    """,
    re.IGNORECASE | re.VERBOSE | re.MULTILINE,
)
_LONG_RUN = re.compile(r"\W{40,}")
_REFUSAL = re.compile(
    r"""
    \A\W*(?:(?:i['’]?m|i\ am)\s+(?:very\ |so\ |really\ )?(?:sorry|afraid)|sorry|i\ apologi[sz]e|my\ apologies|unfortunately)?\W*
    (?:but\s+|that\s+)?
    (?:
        # "I can't help with that", and not "I can't help but smile", "I can't recommend it enough"
        i(?:['’]m|\ am)?\s+(?:can(?:no|['’])t|not\s+able\s+to|unable\s+to|won['’]t|will\s+not)\s+(?:be\s+able\s+to\s+)?
        (?:help(?!\s+but)|assist|provide|answer|comply|fulfil|do\s+(?:that|this)|discuss|engage|participate|generate|create
          |write|produce|share|complete|respond|support|continue|offer|revise|correct|rewrite|edit|process)
        | as\s+an\s+ai(?=\s*,|\s+i\b|\s+(?:language\s+)?(?:model|assistant|chatbot)\b)
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)
# What a revision is judged by.
COLUMNS = ["messages", "reference", "initial", "initial_reasoning", "revised", "reward_initial"]


def filter_revisions(
    rows: pa.Table,
    settings: FilterSettings,
    tokenizer: LabelTokenizer,
    reward: RewardModel | None,
    on_progress: OnProgress,
) -> StageOutput:
    """Adds the columns of `schema.FILTER`. Without a reward model there is no gate on the gain, and `reward_revised` is null.

    Rejects: empty_revision, meta_talk, refusal, unchanged, too_similar, too_different, rouge_gain_too_small,
    reward_gain_too_small, bad_reward, and those of `LabelTokenizer.tokenize`.
    """
    output = collect(rows, schema.FILTER, judge(rows.select(COLUMNS).to_pylist(), settings, tokenizer, reward))
    on_progress(rows.num_rows, len(output.rejects))
    return output


def judge(
    table: Sequence[dict[str, Any]], settings: FilterSettings, tokenizer: LabelTokenizer, reward: RewardModel | None
) -> list[RowResult]:
    """The values that the stage adds to each row with the values `COLUMNS`, or why the row leaves."""

    def measured(row: dict[str, Any]) -> dict[str, Any]:
        check_text(row["revised"], row["initial"], row["reference"])
        tokens = tokenize_pair(row, tokenizer, settings)
        # Whether the revision came nearer to the reference; no reward model takes part.
        gain = rouge_l(row["revised"], row["reference"]) - rouge_l(row["initial"], row["reference"])
        if (least := settings.min_rouge_gain) is not None and gain < least:
            reject = RowReject("rouge_gain_too_small", rouge_gain=gain, at_least=least)
            raise reject.with_columns(edit_distance=tokens["edit_distance"])
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


def chooser(settings: FilterSettings, tokenizer: LabelTokenizer, reward: RewardModel) -> Choose:
    """Chooses, of a row's revisions, the one of highest reward that passes the filter; the first if none passes.

    Of equal rewards the earlier candidate's wins. All candidates of all rows are scored together.
    """

    def choose(rows: Sequence[dict[str, Any]], candidates: Sequence[Sequence[str]]) -> list[int]:
        spread = [{**row, "revised": text} for row, texts in zip(rows, candidates, strict=True) for text in texts]
        judged = iter(judge(spread, settings, tokenizer, reward))
        chosen = []
        for texts in candidates:
            results = [next(judged) for _ in texts]
            passed = {n: r["reward_revised"] for n, r in enumerate(results) if not isinstance(r, RowReject)}
            chosen.append(max(passed, key=passed.__getitem__, default=0))
        return chosen

    return choose


def check_text(revised: str, initial: str, reference: str) -> None:
    """Raises RowReject for what isn't an answer to the query, unless draft or reference show the same pattern."""
    if not revised.strip():
        raise RowReject("empty_revision")
    for reason, pattern in (("meta_talk", _META), ("refusal", _REFUSAL)):
        match = pattern.search(_squeeze(revised))
        if match and not pattern.search(_squeeze(initial)) and not pattern.search(_squeeze(reference)):
            raise RowReject(reason, found=match[0])


def _squeeze(text: str) -> str:
    """The text with long runs of symbols and blanks shortened: the patterns take quadratic time on them."""
    return _LONG_RUN.sub(lambda run: run[0][:10] + run[0][-10:], text)


# A word, or a character of a script that has no spaces.
_NO_SPACES = r"\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff"
_ROUGE_WORD = re.compile(rf"[{_NO_SPACES}]|[^\W{_NO_SPACES}]+")


def rouge_l(text: str, reference: str) -> float:
    """ROUGE-L (Lin, 2004), F1: twice the longest common subsequence of words over both lengths; 0 if both are empty.

    >>> rouge_l("The egg is hard.", "Boil the egg.")
    0.5714285714285714
    """
    mine, theirs = (_ROUGE_WORD.findall(each.lower()) for each in (text, reference))
    return 2 * LCSseq.similarity(mine, theirs) / max(1, len(mine) + len(theirs))


def _gate_reward(result: dict[str, Any], revised: Score, initial: float, settings: FilterSettings) -> RowResult:
    """The result with R(X, Ỹ), when that is a number and gains enough on R(X, Ŷ)."""
    distance = result["edit_distance"]
    if isinstance(revised, RowReject):
        return revised.copy_with(score="reward_revised").with_columns(edit_distance=distance)
    if not math.isfinite(revised):
        return RowReject("bad_reward", reward_revised=str(revised)).with_columns(edit_distance=distance)
    gain, least = revised - initial, settings.min_reward_gain or 0.0
    if gain < least:
        reject = RowReject("reward_gain_too_small", reward_gain=gain, at_least=least)
        return reject.with_columns(edit_distance=distance, reward_revised=revised)
    return {**result, "reward_revised": revised}
