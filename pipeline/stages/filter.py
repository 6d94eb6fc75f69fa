"""Filter: keep a revision that is an answer, near the draft, and better by the reward model.

Cheap tests come first. Tokenising happens here, once: the distance is over the very ids that are published.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from rapidfuzz.distance import LCSseq, Levenshtein

from pipeline import schema
from pipeline.config.settings import FilterSettings
from pipeline.errors import RowReject
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.rewards.base import RewardModel, Score, score_items
from pipeline.stages.common import Report, collect
from pipeline.storage.stage_files import StageOutput

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
# One of these is in all that `_META` finds, letters that only look like theirs to it ("verſion") folded; to look for them takes
# a twentieth of its time.
_META_HAS = ("draft", "response", "answer", "reply", "vers", "text", "message")
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


def filter_revisions(
    rows: pa.Table, settings: FilterSettings, tokenizer: LabelTokenizer, reward: RewardModel | None, report: Report
) -> StageOutput:
    """Adds `edit_distance`, `overlong`, `reward_revised`, and for the label stage the ids of both sequences, and their
    words if its granularity needs them. Without a reward model there is no gate on the gain, and `reward_revised` is null.

    Rejects: empty_revision, meta_talk, refusal, unchanged, too_similar, too_different, rouge_gain_too_small,
    reward_gain_too_small, bad_reward, and the tokenizer's too_long, special_token_in_text, template_refuses,
    template_alters_answer, token_across_boundary.
    """
    table = rows.select([*COLUMNS]).to_pylist()
    results = judge(table, settings, tokenizer, reward)
    report(len(results), sum(isinstance(result, RowReject) for result in results))
    return collect(rows, schema.FILTER, results)


# What is judged by.
COLUMNS = ("messages", "reference", "initial", "revised", "reward_initial")


def judge(
    table: Sequence[dict[str, Any]], settings: FilterSettings, tokenizer: LabelTokenizer, reward: RewardModel | None
) -> list[dict[str, Any] | RowReject]:
    """What the stage adds to each row with the values `COLUMNS`, or why it goes."""
    results: list[dict[str, Any] | RowReject] = []
    for row in table:
        try:
            check_text(row["revised"], row["initial"], row["reference"])
            measured = tokens(row, tokenizer, settings)
            _check_rouge(row, measured["edit_distance"], settings)
            results.append({**measured, "reward_revised": None})
        except RowReject as reject:
            results.append(reject)
    if reward is not None:
        near = [index for index, result in enumerate(results) if not isinstance(result, RowReject)]
        items = [(table[i]["messages"], table[i]["revised"]) for i in near]
        scores = score_items(reward, items, [table[i]["reference"] for i in near])
        for index, value in zip(near, scores, strict=True):
            results[index] = _gate(results[index], value, table[index]["reward_initial"], settings)
    return results


def check_text(revised: str, initial: str, reference: str) -> None:
    """Refuse what isn't an answer to the query. Patterns count only where draft and reference don't show them too."""
    if not revised.strip():
        raise RowReject("empty_revision")
    folded = revised.casefold()
    patterns = [("meta_talk", _META)] if any(word in folded for word in _META_HAS) else []
    for reason, pattern in [*patterns, ("refusal", _REFUSAL)]:
        found = pattern.search(revised)
        if found and not pattern.search(initial) and not pattern.search(reference):
            raise RowReject(reason, found=found[0])


def tokens(row: dict[str, Any], tokenizer: LabelTokenizer, settings: FilterSettings) -> dict[str, Any]:
    """The columns of `schema.TOKENS` of a row with messages, initial and revised. Raises RowReject."""
    initial, revised = tokenizer.tokenize(row["messages"], row["initial"], row["revised"])
    words = tokenizer.settings.granularity != "token"
    distance = Levenshtein.normalized_distance(initial.response_ids, revised.response_ids)
    if distance == 0:
        raise RowReject("unchanged").keeping(edit_distance=0.0)
    if distance <= settings.min_distance:
        raise RowReject("too_similar", above=settings.min_distance).keeping(edit_distance=distance)
    if distance > settings.max_distance:
        raise RowReject("too_different", at_most=settings.max_distance).keeping(edit_distance=distance)
    return {
        "edit_distance": distance,
        "overlong": max(len(initial.ids), len(revised.ids)) > tokenizer.settings.max_length,
        "prompt_input_ids": revised.ids[: revised.prompt_length],
        "revised_input_ids": revised.ids,
        "initial_input_ids": initial.ids,
        "revised_words": revised.words if words else [],
        "initial_words": initial.words if words else [],
    }


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


def _check_rouge(row: dict[str, Any], distance: float, settings: FilterSettings) -> None:
    """The gate that asks the reference, not the reward model, whether the revision gained anything. Raises RowReject."""
    least = settings.min_rouge_gain
    if least is None:
        return
    gain = rouge_l(row["revised"], row["reference"]) - rouge_l(row["initial"], row["reference"])
    if gain < least:
        raise RowReject("rouge_gain_too_small", rouge_gain=gain, at_least=least).keeping(edit_distance=distance)


def _gate(
    result: dict[str, Any] | RowReject, revised: Score, initial: float, settings: FilterSettings
) -> dict[str, Any] | RowReject:
    assert isinstance(result, dict)  # noqa: S101 - for the type checker: only survivors are scored
    if isinstance(revised, RowReject):
        return revised.like(score="reward_revised").keeping(edit_distance=result["edit_distance"])
    if not math.isfinite(revised):
        return RowReject("bad_reward", reward_revised=str(revised)).keeping(edit_distance=result["edit_distance"])
    gain, least = revised - initial, settings.min_reward_gain or 0.0
    if gain < least:
        reject = RowReject("reward_gain_too_small", reward_gain=gain, at_least=least)
        return reject.keeping(edit_distance=result["edit_distance"], reward_revised=revised)
    return {**result, "reward_revised": revised}
