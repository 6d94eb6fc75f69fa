"""A second reward model, for the evaluation alone: it had no part in selecting or gating a pair.

A Bradley–Terry model on the difference of tf-idf vectors (words and pairs of words) of two replies, fitted on people's
preferences in hh-rlhf rows that neither the training set nor the held-out queries use. It sees no length and no query.
It is weak, and its accuracy on pairs that it was not fitted on is printed beside every result.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tests.replication.measures import words

Floats = npt.NDArray[np.float64]
RIDGE, NEWTON_STEPS, FOLDS = 1.0, 12, 5


class Judge:
    """score(texts) -> (n,); only differences mean something, in logits of being preferred."""

    def __init__(self, chosen: Sequence[str], rejected: Sequence[str]) -> None:
        texts = [*chosen, *rejected]
        spread = Counter(term for text in texts for term in set(_terms(text)))
        self._terms = {term: i for i, term in enumerate(sorted(t for t, n in spread.items() if n > 1))}
        self._idf = np.array([np.log(len(texts) / spread[term]) for term in self._terms])
        difference = self._vectors(chosen) - self._vectors(rejected)
        self._weights = difference.T @ _dual(difference @ difference.T)

    def score(self, texts: Sequence[str]) -> Floats:
        return self._vectors(texts) @ self._weights

    def _vectors(self, texts: Sequence[str]) -> Floats:
        found = np.zeros((len(texts), len(self._terms)))
        for row, text in enumerate(texts):
            for term, count in Counter(_terms(text)).items():
                if term in self._terms:
                    found[row, self._terms[term]] = 1 + np.log(count)
        found *= self._idf
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def accuracy(chosen: Sequence[str], rejected: Sequence[str]) -> float:
    """Share of pairs ranked as people did, by judges fitted on the other folds."""
    right = 0
    for fold in range(FOLDS):
        rest = [i for i in range(len(chosen)) if i % FOLDS != fold]
        judge = Judge([chosen[i] for i in rest], [rejected[i] for i in rest])
        right += int((judge.score(chosen[fold::FOLDS]) > judge.score(rejected[fold::FOLDS])).sum())
    return right / len(chosen)


def _terms(text: str) -> list[str]:
    found = words(text)
    return [*found, *(f"{a} {b}" for a, b in itertools.pairwise(found))]


def _dual(kernel: Floats) -> Floats:
    """Ridge logistic regression, all labels 1, by Newton's method on one coefficient a pair."""
    margin = np.zeros(len(kernel))
    coefficients = margin
    for _ in range(NEWTON_STEPS):
        wrong = 1 / (1 + np.exp(margin))
        curvature = np.maximum(wrong * (1 - wrong), 1e-6)
        coefficients = np.linalg.solve(kernel + RIDGE * np.diag(1 / curvature), margin + wrong / curvature)
        margin = kernel @ coefficients
    return coefficients
