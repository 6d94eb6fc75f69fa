"""Queries that say nearly the same as one before: MinHash signatures in a locality-sensitive index, by rensa.

Broder, On the resemblance and containment of documents, 1997. Similarity is the Jaccard index of the sets of three-word
runs, estimated from 128 hashes (standard error at most 0.045). Of two similar rows the one read first stays. A system message
is what a query stands under, not part of it: a long one that many rows share would make them all alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from pipeline.sources.checks.check import optional
from pipeline.sources.checks.words import ngrams, words

HASHES = 128
WORDS = 3


class NearDuplicates:
    """The signatures of all queries that were kept. Memory: about 2 kB a query."""

    def __init__(self, threshold: float) -> None:
        self._rensa = optional("rensa", "source.near_duplicates")
        self._threshold = threshold
        self._index = self._rensa.RMinHashLSH(threshold, HASHES, bands(threshold))
        self._kept: list[tuple[str, Any]] = []

    def signature(self, text: str, under: str = "") -> Any:
        """The MinHash of a text; None when it has no words to compare. Texts `under` different words have nothing in common."""
        found = words(text)
        if not found:
            return None
        signature = self._rensa.RMinHash(HASHES, 0)
        runs = ngrams(found, WORDS)
        if under:
            apart = hashlib.sha256(" ".join(words(under)).encode()).hexdigest()
            runs = [apart + run for run in runs]
        signature.update(runs)
        return signature

    def first(self, signature: Any) -> tuple[str, float] | None:
        """The id of the first kept query that is similar enough, and the estimated similarity."""
        for index in sorted(self._index.query(signature)):
            name, other = self._kept[index]
            similarity: float = signature.jaccard(other)
            if similarity >= self._threshold:
                return name, similarity
        return None

    def keep(self, name: str, signature: Any) -> None:
        self._index.insert(len(self._kept), signature)
        self._kept.append((name, signature))


def bands(threshold: float) -> int:
    """The fewest bands that still find a pair at the threshold with probability of at least 0.95.

    With b bands of r = 128/b hashes a pair of similarity s is a candidate with probability 1 − (1 − s^r)^b.
    """
    return next(b for b in _divisors() if b == HASHES or 1 - (1 - threshold ** (HASHES // b)) ** b >= 0.95)


def _divisors() -> Iterator[int]:
    return (b for b in range(1, HASHES + 1) if HASHES % b == 0)
