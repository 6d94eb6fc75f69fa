"""What is measured of answers: likeness to the reference, variety, and how far the policy moved."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from rapidfuzz.distance import LCSseq
from torch import Tensor
from torch.nn import functional

from pipeline.training.loss import IGNORE
from tests.replication.methods import Sequence_
from tests.replication.policy import Policy


def words(text: str) -> list[str]:
    """Lower-cased words.

    >>> words("It's the 2nd.")
    ["it's", 'the', '2nd']
    """
    return re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower().replace("’", "'"))


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L F1 over words, in [0, 1] (Lin, 2004).

    >>> rouge_l("a b c d", "a c d e")
    0.75
    """
    mine, theirs = words(answer), words(reference)
    return 2 * LCSseq.similarity(mine, theirs) / max(1, len(mine) + len(theirs))


def distinct(answers: Sequence[str], n: int) -> float:
    """Different word n-grams among all word n-grams of all answers (Li et al., 2016).

    >>> distinct(["a b a b"], 2)
    0.6666666666666666
    """
    grams = [tuple(w[i : i + n]) for w in map(words, answers) for i in range(len(w) - n + 1)]
    return len(set(grams)) / max(1, len(grams))


class Replies:
    """Replies behind their prompts; where the top begins they never change. ids: of both; prompts: the prompts' lengths."""

    def __init__(self, policy: Policy, ids: Sequence[Sequence[int]], prompts: Sequence[int]) -> None:
        self._policy, self._ids, self._prompts = policy, ids, prompts
        self._hidden = policy.trunk(ids)

    def states(self) -> list[Tensor]:
        """Of each reply, where the head begins, what predicts its tokens and the one behind it: (T + 1, width)."""
        with torch.no_grad():
            return [
                self._policy.top([hidden])[0, prompt - 1 :]
                for hidden, prompt in zip(self._hidden, self._prompts, strict=True)
            ]

    def logprobs(self) -> list[float]:
        """Mean log p of each reply's tokens, in nats."""
        found = []
        with torch.no_grad():
            for states, ids, prompt in zip(self.states(), self._ids, self._prompts, strict=True):
                logits = self._policy.head(states[:-1])
                found.append(-functional.cross_entropy(logits, torch.tensor(ids[prompt:])).item())
        return found


class Drift:
    """KL(start ‖ policy) in nats a token, along answers that the starting policy gave. Make it with the policy at its start."""

    def __init__(self, policy: Policy, answers: Replies) -> None:
        self._policy, self._answers = policy, answers
        self._start = answers.states()

    def measure(self) -> float:
        total, count = 0.0, 0
        with torch.no_grad():
            for before, after in zip(self._start, self._answers.states(), strict=True):
                p, q = (torch.log_softmax(self._policy.head(states), -1) for states in (before, after))
                total += (p.exp() * (p - q)).sum().item()
                count += len(before)
        return total / count


def edit_logprobs(policy: Policy, pairs: Sequence[dict[str, Sequence_]]) -> dict[str, float]:
    """Mean log p of the tokens that the revision brought in (`good`) and took out (`bad`) of these pairs."""
    found: dict[str, list[Tensor]] = {"good": [], "bad": []}
    for pair in pairs:
        for side, kind in (("revised", "good"), ("initial", "bad")):
            row = pair[side]
            wanted = (row.labels[1:] != IGNORE) & (row.weights[1:] != 0)
            with torch.no_grad():
                logits = policy.head(policy.top([row.hidden])[0, :-1][wanted])
            found[kind].append(torch.log_softmax(logits, -1).gather(1, row.labels[1:][wanted][:, None]).flatten())
    return {kind: torch.cat(parts).mean().item() if parts else float("nan") for kind, parts in found.items()}
