"""The tokens of a published answer with their texts, for reading: id, text, operation, weight."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rapidfuzz.distance import Levenshtein

from pipeline.errors import RowReject
from pipeline.labels.alignment import DELETE, INSERT, KEEP, SUBSTITUTE
from pipeline.labels.tokenizer import LabelTokenizer

SIDES = ("initial", "revised")


@dataclass(frozen=True, slots=True)
class Tokens:
    """One answer. Lists of equal length; ids and weights are None where the tokenizer is not at hand, and texts are words."""

    texts: list[str]
    ops: list[int]
    ids: list[int] | None
    weights: list[float] | None


def of_row(row: dict[str, Any], tokenizer: LabelTokenizer | None) -> dict[str, Tokens]:
    """Both answers of a published row, by side. Exact where the tokenizer gives the stored ids again, else words."""
    answers = None
    if tokenizer:
        try:
            answers = tokenizer.tokenize(row["messages"], row["initial"], row["revised"])
        except RowReject:
            answers = None
    if not answers or any(a.ids != row[f"{side}_input_ids"] for side, a in zip(SIDES, answers, strict=True)):
        return words(row["initial"], row["revised"])
    start = len(row["prompt_input_ids"])
    return {
        side: Tokens(
            answer.pieces,
            row[f"{side}_ops"][start:],
            answer.response_ids,
            [round(weight, 4) for weight in row[f"{side}_weights"][start:]],
        )
        for side, answer in zip(SIDES, answers, strict=True)
    }


def words(initial: str, revised: str) -> dict[str, Tokens]:
    """Both texts as words, with the operations that make the first the second; no ids, no weights."""
    words = [re.findall(r"\s*\S+|\s+$", text) for text in (initial, revised)]
    ops: list[list[int]] = [[KEEP] * len(part) for part in words]
    for step in Levenshtein.opcodes(*words):
        if step.tag == "equal":
            continue
        for side, (start, end), alone in (
            (0, (step.src_start, step.src_end), DELETE),
            (1, (step.dest_start, step.dest_end), INSERT),
        ):
            ops[side][start:end] = [SUBSTITUTE if step.tag == "replace" else alone] * (end - start)
    return {side: Tokens(words[n], ops[n], None, None) for n, side in enumerate(SIDES)}


def runs(values: Iterable[Any]) -> list[list[Any]]:
    """Run lengths: [a, a, b] becomes [[2, a], [1, b]]."""
    return [[sum(1 for _ in group), value] for value, group in groupby(values)]
