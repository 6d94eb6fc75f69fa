"""Near duplicates: found where the exact Jaccard index says so, and the same ones every time."""

from __future__ import annotations

import random

import pytest

from pipeline.sources.checks.common import ngrams, words
from pipeline.sources.checks.near_duplicates import HASHES, WORDS, NearDuplicates, bands


def jaccard(left: str, right: str) -> float:
    a, b = (set(ngrams(words(text), WORDS)) for text in (left, right))
    return len(a & b) / len(a | b)


def kept(texts: list[str], threshold: float = 0.8) -> list[int]:
    index, names = NearDuplicates(threshold), []
    for number, text in enumerate(texts):
        signature = index.signature(text)
        if not index.first(signature):
            index.keep(str(number), signature)
            names.append(number)
    return names


def varied(rng: random.Random, text: str, changes: int) -> str:
    parts = text.split()
    for _ in range(changes):
        parts[rng.randrange(len(parts))] = f"w{rng.randrange(5000)}"
    return " ".join(parts)


def test_far_above_the_threshold_all_are_found_and_far_below_none() -> None:
    rng = random.Random(0)
    texts = [" ".join(f"w{rng.randrange(5000)}" for _ in range(60)) for _ in range(200)]
    near = [varied(rng, text, 1) for text in texts]
    far = [varied(rng, text, 12) for text in texts]
    assert all(jaccard(a, b) > 0.88 for a, b in zip(texts, near, strict=True))
    assert all(jaccard(a, b) < 0.7 for a, b in zip(texts, far, strict=True))
    assert kept([*texts, *near]) == list(range(200))
    assert kept([*texts, *far]) == list(range(400))


def test_the_first_of_several_similar_rows_is_named_with_the_similarity() -> None:
    index = NearDuplicates(0.5)
    for name, text in (("a", "one two three four five six"), ("b", "seven eight nine ten")):
        index.keep(name, index.signature(text))
    assert index.first(index.signature("One, two; THREE four five six!")) == ("a", 1.0)
    assert index.first(index.signature("ten nine eight seven")) is None
    assert index.signature(" … ?! ") is None


def test_a_shared_system_message_makes_no_two_queries_alike() -> None:
    index, system = NearDuplicates(0.8), " ".join(f"word{n}" for n in range(100))
    index.keep("a", index.signature("What is two plus two?", system))
    assert index.first(index.signature("Who wrote the Iliad?", system)) is None
    assert index.first(index.signature("what is two plus two", system.upper())) == ("a", 1.0)
    assert index.first(index.signature("What is two plus two?", "Summarise the text above.")) is None
    assert index.first(index.signature("What is two plus two?")) is None


def test_signatures_are_those_of_the_first_version() -> None:
    # Written down: a library that hashes otherwise would silently make other data sets.
    assert NearDuplicates(0.8).signature("Why do we have leap years?").digest()[:3] == [
        3251704381,
        3772824631,
        3655464959,
    ]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_find_pairs_at_the_threshold(threshold: float) -> None:
    count = bands(threshold)
    assert HASHES % count == 0
    assert count == HASHES or 1 - (1 - threshold ** (HASHES // count)) ** count >= 0.95
