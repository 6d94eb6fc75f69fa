"""A language model as judge, called like any other model: journal, budget, limits, retries and batches as in `models/`.

pointwise   R(X, Y) is a mark from 1 to 9: its expectation by the probabilities of the mark's token where the server returns
            them, else the written mark.
pairwise    R(X, Y) is how much Y is preferred to the row's reference, from −1 to 1; 0 for the reference itself. It is the
            mean over both orders, so a judge that always prefers the first reply gives 0.
revision    no reward, but a gate of the filter stage: how much a revision is preferred to its draft, from −1 to 1, where the
            reference is shown as facts; the mean over both orders of P(revision) − P(draft).

A judgement that can't be read is a reject (judgement_unreadable), as is a failed call.
"""

import asyncio
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import RewardSettings
from pipeline.errors import RowReject
from pipeline.models.chat import ChatModel, OnProgress
from pipeline.models.factory import identity, request_params
from pipeline.models.journal import Answer
from pipeline.models.provider_errors import snippet
from pipeline.models.request import ChatRequest
from pipeline.prompts import JudgePrompts
from pipeline.rewards.base import Item, RewardModel, Score
from pipeline.schema import digest

# Raise when the same responses are read as other scores.
CODE = 1
# The most that OpenAI returns, and vLLM by default.
_ALTERNATIVES = 20
_MARK = re.compile(r"\W*([1-9])\W*")
_NAMED_MARK = re.compile(r"(?:\[\[|\b(?:score|rating|mark)\W{1,4})(\d+(?:\.\d+)?)", re.IGNORECASE)
_CHOICE = re.compile(r"\W*([AB])\W*")
_NAMED_CHOICE = re.compile(r"(?:\[\[\s*|\b(?:answer|better|verdict)\W{1,4})(A|B|tie)\b")
_PREFERENCES = {"A": 1.0, "B": -1.0, "tie": 0.0}


def judge_params(settings: RewardSettings, *, first: bool = True) -> dict[str, Any]:
    """The SDK parameters of a judge's calls, the `first` of its row or a later one."""
    spec = ModelSpec.parse(settings.model)
    params = request_params(settings, spec, settings.seed, first=first)
    if settings.logprobs and spec.provider != "anthropic":
        params |= {"logprobs": True, "top_logprobs": _ALTERNATIVES}
    return params


class _Judge:
    """What all kinds of judge share."""

    kind: str
    chat_models: Sequence[ChatModel]
    facts: Mapping[str, Any]

    def __init__(self, settings: RewardSettings, model: ChatModel) -> None:
        spec = ModelSpec.parse(settings.model)
        self._prompts = self.prompts(settings)
        self._model = model
        self._settings = settings
        template = self._prompts.digest[:16]
        self.chat_models = [model]
        self.name = f"{spec}#{self.kind}:{template[:8]}"
        self.digest = digest(CODE, identity(spec), self.kind, self._prompts.digest)
        self.facts = {"kind": f"{self.kind} judge", "template": template, **identity(spec)}
        # Each row is two calls or more. In batch mode all rows wait for one batch.
        self.rows_per_call = 0 if settings.mode == "batch" else max(64, 4 * settings.concurrency)

    @classmethod
    def prompts(cls, settings: RewardSettings) -> JudgePrompts:
        return JudgePrompts(cls.kind, settings.prompts)

    def _ask(self, prompts: Sequence[str], read: Callable[[Answer], float]) -> list[Score]:
        async def ask(prompt: str) -> float:
            return read(await self._answer("judge", prompt))

        return self._model.each_row(prompts, ask)

    async def _answer(self, call: str, prompt: str, *, first: bool = True) -> Answer:
        """The response to one prompt, the `first` of its row or a later one. Raises RowReject, or what ends the run."""
        messages, params = [{"role": "user", "content": prompt}], judge_params(self._settings, first=first)
        return await self._model.ask(call, ChatRequest(messages, self._settings.max_tokens, params))


class PointwiseJudge(_Judge, RewardModel):
    kind = "pointwise"

    def score(self, items: Sequence[Item], references: Sequence[str]) -> list[Score]:
        """Marks from 1 to 9. References are not used."""
        return self._ask([self._prompts.render(messages, answer) for messages, answer in items], read_mark)


class PairwiseJudge(_Judge, RewardModel):
    kind = "pairwise"

    def score(self, items: Sequence[Item], references: Sequence[str]) -> list[Score]:
        """How much each answer is preferred to its reference, in [−1, 1]; a preference for one position cancels out."""
        return [
            preferences if isinstance(preferences, RowReject) else (preferences[0] - preferences[1]) / 2
            for preferences in self.compare(items, references)
        ]

    def compare(self, items: Sequence[Item], references: Sequence[str]) -> list[tuple[float, float] | RowReject]:
        """How much the first reply is preferred, in [−1, 1]: with the answer first, and with the reference first."""
        compared: list[tuple[float, float] | RowReject] = [(0.0, 0.0)] * len(items)
        # A text equals itself, without a call.
        differing = [n for n, ((_, answer), ref) in enumerate(zip(items, references, strict=True)) if answer != ref]
        prompts = []
        for n in differing:
            (messages, answer), reference = items[n], references[n]
            prompts += [self._prompts.render(messages, *pair) for pair in ((answer, reference), (reference, answer))]
        preferences = self._ask(prompts, read_choice)
        for n, first, second in zip(differing, preferences[::2], preferences[1::2], strict=True):
            if isinstance(first, RowReject):
                compared[n] = first
            else:
                compared[n] = second if isinstance(second, RowReject) else (first, second)
        return compared


class RevisionJudge(_Judge):
    """Compares revisions with their drafts."""

    kind = "revision"

    @classmethod
    def prompts(cls, settings: RewardSettings) -> JudgePrompts:
        """A short prompt for small models. With 1.5 billion parameters, the gains of six good and six bad revisions overlapped
        by the long prompt, and did not by the short one."""
        local = ModelSpec.parse(settings.model).provider == "local"
        return JudgePrompts("revision_local" if local else cls.kind, settings.prompts)

    def gains(
        self, rows: Sequence[dict[str, Any]], at_least: float, on_progress: OnProgress = lambda rows, bad: None
    ) -> list[float | RowReject]:
        """How much each row's `revised` is preferred to its `initial`, the mean over both orders, in [−1, 1].

        Rejects: judge_gain_too_small, judgement_unreadable, and those of `ChatModel.ask`.
        """

        async def compare(row: dict[str, Any]) -> float:
            draft_first, revision_first = await self._both_orders(row)
            gain = (revision_first - draft_first) / 2
            if gain < at_least:
                orders = {"draft_first": draft_first, "revision_first": revision_first}
                raise RowReject("judge_gain_too_small", judge_gain=gain, at_least=at_least, prefers_first=orders)
            return gain

        return self._model.each_row(rows, compare, on_progress)

    async def _both_orders(self, row: dict[str, Any]) -> list[float]:
        """How much the first reply is preferred: with the draft first, and with the revision first."""
        draft, revised = row["initial"], row["revised"]
        prompts = [
            self._prompts.render_comparison(row["messages"], row["reference"], *pair)
            for pair in ((draft, revised), (revised, draft))
        ]
        if self._settings.mode == "batch":  # both in one batch
            answers = await asyncio.gather(
                *(self._answer("filter", prompt) for prompt in prompts), return_exceptions=True
            )
        else:  # the second finds the first's texts in the prompt cache
            answers = [await self._answer("filter", prompt, first=not n) for n, prompt in enumerate(prompts)]
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return [read_choice(answer) for answer in answers if isinstance(answer, Answer)]


def read_mark(answer: Answer) -> float:
    """The mark from 1 to 9 in a judge's response, or its expectation by token probabilities. Raises RowReject.

    >>> read_mark(Answer("Score: 7", "stop", 16))
    7.0
    """
    named = _NAMED_MARK.findall(answer.text)
    numbers = named[-1:] or re.findall(r"\d+(?:\.\d+)?", re.sub(r"(?<=\d)\s*/\s*(?:9|10)\b", "", answer.text))
    mark = float(numbers[0]) if len(numbers) == 1 else math.nan
    if not 1 <= mark <= 9:
        raise RowReject("judgement_unreadable", answer=snippet(answer.text), expected="one number from 1 to 9")
    weights = _probabilities(answer, _MARK, f"{mark:g}")
    return sum(int(name) * weight for name, weight in weights.items()) if weights else mark


def read_choice(answer: Answer) -> float:
    """1 where a judge prefers the first of two replies, −1 the second, 0 a tie; or between. Raises RowReject.

    >>> read_choice(Answer("B", "stop", 16))
    -1.0
    """
    choices = _NAMED_CHOICE.findall(answer.text)[-1:] or re.findall(r"\b(?:A|B|tie)\b", answer.text)
    if len(set(choices)) != 1:
        raise RowReject("judgement_unreadable", answer=snippet(answer.text), expected="A, B or tie")
    weights = _probabilities(answer, _CHOICE, choices[0]) or {choices[0]: 1.0}
    return sum(_PREFERENCES[name] * weight for name, weight in weights.items())


def _probabilities(answer: Answer, pattern: re.Pattern[str], written: str) -> dict[str, float]:
    """The probabilities of the alternatives to what was `written`, with sum 1; empty when they are unknown."""
    positions = ((pattern.fullmatch(tokens[0][0]), tokens) for tokens in answer.logprobs or [])
    tokens = next((tokens for match, tokens in positions if match and match[1] == written), [])
    # Spellings of one mark (7, ␣7) add up; the written token may be among its alternatives again.
    weights: dict[str, float] = {}
    for text, logprob in dict(tokens).items():
        if match := pattern.fullmatch(text):
            weights[match[1]] = weights.get(match[1], 0.0) + math.exp(logprob)
    total = math.fsum(weights.values())
    return {name: weight / total for name, weight in weights.items()} if total > 0 else {}
