"""A language model as judge, asked like any other model: journal, budget, limits, retries and batches as in `models/`.

pointwise   R(X, Y) is a mark from 1 to 9 by the rubric of `prompts/judge_pointwise.md`: expected over the probabilities of
            the mark's token where the server gives them, else the mark as written.
pairwise    R(X, Y) is how much Y is preferred to the row's reference, from −1 to 1, and 0 for the reference itself.
            Asked in both orders, and the mean taken: a judge that always prefers the first reply says 0.

A judgement that can't be read is a reject (judgement_unreadable), as is a call that got no answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.config.model_names import ModelSpec
from pipeline.config.reward import RewardSettings
from pipeline.config.settings import digest
from pipeline.errors import RowReject
from pipeline.models.chat import ChatModel, ChatRequest
from pipeline.models.event_loop import each_row
from pipeline.models.factory import identity, request_params
from pipeline.models.journal import Answer
from pipeline.models.provider_errors import snippet
from pipeline.prompts import JudgePrompts

if TYPE_CHECKING:
    from pipeline.rewards import Item, Score

# Raise when the same answers are read as other scores.
CODE = 1
# What OpenAI gives at most, and vLLM by default.
_ALTERNATIVES = 20
_MARK = re.compile(r"\W*([1-9])\W*")
_NAMED_MARK = re.compile(r"(?:\[\[|\b(?:score|rating|mark)\W{1,4})(\d+(?:\.\d+)?)", re.IGNORECASE)
_CHOICE = re.compile(r"\W*([AB])\W*")
_NAMED_CHOICE = re.compile(r"(?:\[\[\s*|\b(?:answer|better|verdict)\W{1,4})(A|B|tie)\b")
_LEANING = {"A": 1.0, "B": -1.0, "tie": 0.0}


class _Judge:
    """What the two kinds share. models: whom it asks."""

    def __init__(self, settings: RewardSettings, model: ChatModel) -> None:
        spec = ModelSpec.parse(settings.model)
        self._prompts = JudgePrompts(settings.judge, settings.prompts)
        self._model = model
        self._settings = settings
        self._params = request_params(settings, spec, settings.seed)
        if settings.logprobs and spec.provider != "anthropic":
            self._params |= {"logprobs": True, "top_logprobs": _ALTERNATIVES}
        template = self._prompts.digest[:16]
        self.models = [model]
        self.name = f"{spec}#{settings.judge}:{template[:8]}"
        self.digest = digest(CODE, identity(spec), settings.judge, self._prompts.digest)
        self.facts = {"kind": f"{settings.judge} judge", "template": template, **identity(spec)}
        # Each row is two calls or more; who waits for a batch waits for all rows at once.
        self.chunk = 0 if settings.mode == "batch" else max(64, 4 * settings.concurrency)

    def _ask(self, prompts: Sequence[str]) -> list[Answer | RowReject]:
        async def ask(prompt: str) -> Answer:
            messages = [{"role": "user", "content": prompt}]
            return await self._model.ask("judge", ChatRequest(messages, self._settings.max_tokens, self._params))

        with self._model.shard_lock:
            answers = each_row(prompts, ask, workers=self._model.concurrency)
            self._model.raise_if_all_failed()
        return answers


class PointwiseJudge(_Judge):
    def score(self, items: Sequence[Item]) -> list[Score]:
        answers = self._ask([self._prompts.render(messages, answer) for messages, answer in items])
        return [answer if isinstance(answer, RowReject) else _read(read_mark, answer) for answer in answers]


class PairwiseJudge(_Judge):
    def score(self, items: Sequence[Item]) -> list[Score]:
        raise TypeError("a pairwise judge scores an answer against another one: call `against`")

    def against(self, items: Sequence[Item], references: Sequence[str]) -> list[Score]:
        """How much each answer is preferred to its reference, in [−1, 1]; the two orders cancel out a bias for one."""
        return [
            orders if isinstance(orders, RowReject) else (orders[0] - orders[1]) / 2
            for orders in self.orders(items, references)
        ]

    def orders(self, items: Sequence[Item], references: Sequence[str]) -> list[tuple[float, float] | RowReject]:
        """How much the first reply was preferred, in [−1, 1]: with the answer first, then with the reference first."""
        pairs = list(zip(items, references, strict=True))
        # A text is as good as itself; nobody need be asked.
        asked = [n for n, ((_, answer), reference) in enumerate(pairs) if answer != reference]
        prompts = []
        for n in asked:
            (messages, answer), reference = pairs[n]
            prompts += [
                self._prompts.render(messages, answer, reference),
                self._prompts.render(messages, reference, answer),
            ]
        answers = self._ask(prompts)
        leanings = [answer if isinstance(answer, RowReject) else _read(read_choice, answer) for answer in answers]
        told: list[tuple[float, float] | RowReject] = [(0.0, 0.0)] * len(pairs)
        for place, n in enumerate(asked):
            first, second = leanings[2 * place : 2 * place + 2]
            failed = next((one for one in (first, second) if isinstance(one, RowReject)), None)
            told[n] = failed or (first, second)  # type: ignore[assignment]  # neither is a reject
        return told


def _read(reader: object, answer: Answer) -> Score:
    try:
        return reader(answer)  # type: ignore[operator,no-any-return]
    except RowReject as reject:
        return reject


def read_mark(answer: Answer) -> float:
    """The mark from 1 to 9 that a judge gave, expected over its alternatives where their probabilities are known.

    Raises RowReject.

    >>> read_mark(Answer("Score: 7", "stop", 16))
    7.0
    """
    named = _NAMED_MARK.findall(answer.text)
    found = named[-1:] or re.findall(r"\d+(?:\.\d+)?", re.sub(r"(?<=\d)\s*/\s*(?:9|10)\b", "", answer.text))
    mark = float(found[0]) if len(found) == 1 else math.nan
    if not 1 <= mark <= 9:
        raise RowReject("judgement_unreadable", answer=snippet(answer.text), expected="one number from 1 to 9")
    weights = _probabilities(answer, _MARK, f"{mark:g}")
    return sum(int(name) * weight for name, weight in weights.items()) if weights else mark


def read_choice(answer: Answer) -> float:
    """How much the first of two replies is preferred: 1 for A, −1 for B, 0 for a tie; between them by probability.

    Raises RowReject.

    >>> read_choice(Answer("B", "stop", 16))
    -1.0
    """
    found = _NAMED_CHOICE.findall(answer.text)[-1:] or re.findall(r"\b(?:A|B|tie)\b", answer.text)
    if len(set(found)) != 1:
        raise RowReject("judgement_unreadable", answer=snippet(answer.text), expected="A, B or tie")
    weights = _probabilities(answer, _CHOICE, found[0])
    return sum(_LEANING[name] * weight for name, weight in weights.items()) if weights else _LEANING[found[0]]


def _probabilities(answer: Answer, pattern: re.Pattern[str], written: str) -> dict[str, float]:
    """The probabilities of what could stand in the place of what was `written`, adding up to 1; empty if not known."""
    for tokens in answer.logprobs or []:
        said = pattern.fullmatch(tokens[0][0])
        if not said or said[1] != written:
            continue
        # Spellings of one mark (7, ␣7) add up; the written token may be among its alternatives again.
        weights: dict[str, float] = {}
        for text, logprob in dict(tokens).items():
            if found := pattern.fullmatch(text):
                weights[found[1]] = weights.get(found[1], 0.0) + math.exp(logprob)
        total = math.fsum(weights.values())
        return {name: weight / total for name, weight in weights.items()} if total > 0 else {}
    return {}
