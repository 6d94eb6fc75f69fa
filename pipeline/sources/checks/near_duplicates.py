"""Queries that say nearly the same as an earlier one: MinHash signatures in a locality-sensitive index, by rensa.

Broder, On the resemblance and containment of documents, 1997. Similarity is the Jaccard index of the sets of three-word
runs, estimated from 128 hashes (standard error at most 0.045). Of two similar rows the one read first stays. Queries under
different system messages have nothing in common, and the system message itself is no part of what is compared: a long one
that many rows share would make them all alike.
"""

import hashlib
from typing import Any

from pipeline.sources.checks.common import ngrams, optional, words

HASHES = 128
WORDS = 3


class NearDuplicates:
    """The signatures of all queries that were kept. Memory: about 2 kB per query."""

    def __init__(self, threshold: float) -> None:
        self._rensa = optional("rensa", "source.near_duplicates")
        self._threshold = threshold
        self._index = self._rensa.RMinHashLSH(threshold, HASHES, bands(threshold))
        self._kept: list[tuple[str, Any]] = []

    def signature(self, text: str, system: str = "") -> Any:
        """The MinHash of a text under a system message; None when it has no words to compare."""
        split = words(text)
        if not split:
            return None
        prefix = hashlib.sha256(" ".join(words(system)).encode()).hexdigest() if system else ""
        runs = [prefix + run for run in ngrams(split, WORDS)]
        signature = self._rensa.RMinHash(HASHES, 0)
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
    """The fewest bands that give a pair at the threshold a probability of at least 0.95 of being compared.

    With b bands of r = 128/b hashes a pair of similarity s is a candidate with probability 1 − (1 − s^r)^b.
    """
    divisors = (b for b in range(1, HASHES + 1) if HASHES % b == 0)
    return next(b for b in divisors if b == HASHES or 1 - (1 - threshold ** (HASHES // b)) ** b >= 0.95)
