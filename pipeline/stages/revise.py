"""Revise: a stronger model says what is wrong with Ŷ, then corrects it as little as possible into Ỹ (paper §3.1).

The path of one row:

1. `check_draft` rejects a draft that loops;
2. a first call diagnoses: one of `REASONS`;
3. a second turn of the same conversation corrects, `reviser.candidates` times. Style `rewrite`, the paper's: the whole answer,
   by the prompt of the diagnosed reason. Style `edits`: find/replace edits (`edits.py`), or a rewrite when none can be applied;
4. of several revisions the best goes on (`filter.chooser`).

Style `branches`, for small models, replaces 2 to 4: the model writes the answer several times, from where it hesitates, and the
program chooses and diagnoses (`branches.py`).
"""

import json
import re
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import REASONS, ReviserSettings
from pipeline.errors import RowReject
from pipeline.models.chat import ChatModel, OnProgress
from pipeline.models.factory import request_params
from pipeline.models.request import ChatRequest
from pipeline.models.thoughts import control_token, without_end_tokens
from pipeline.prompts import Prompts, fence, response_format
from pipeline.stages import branches, edits
from pipeline.stages.common import check_control_tokens, cut_off, row_seed
from pipeline.stages.filter import COLUMNS, Choose
from pipeline.storage.stage_files import StageOutput, collect

DIAGNOSIS_TOKENS = 24
# With fewer runs of four words, repetition says nothing.
_FEWEST_FOURS = 10
# More than the row seeds of neighbouring `reviser.seed`s differ by.
_SEED_STEP = 1_000_003
DIAGNOSIS_FORMAT = response_format("diagnosis", {"reason": {"type": "string", "enum": list(REASONS)}})
# One of our tags, its mark left out or miscopied: never part of an answer.
_TAG = re.compile(r"</?(?:revised|(?:draft|reference|conversation|facts|bad_reply|revised)-[0-9a-f]+)>", re.IGNORECASE)


def revise(
    rows: pa.Table,
    settings: ReviserSettings,
    prompts: Prompts,
    reviser: ChatModel,
    on_progress: OnProgress,
    choose: Choose | None = None,
) -> StageOutput:
    """Adds the columns of `schema.REVISE`; `critique` is null.

    Notes, for edit scripts: edits applied and dropped, rewrites instead.

    choose: which of a row's revisions goes on, where there are `several`; without it the first.

    Rejects: degenerate_draft, diagnosis_unreadable, revision_truncated, leaked_delimiter, special_token_in_text, and those of
    `ChatModel.ask`.
    """
    notes: Counter[str] = Counter()
    table = rows.select(["id", *(name for name in COLUMNS if name != "revised")]).to_pylist()

    async def correct(row: dict[str, Any]) -> dict[str, Any]:
        check_draft(row["initial"], settings.max_repetition)
        reason, revisions = await _RowReviser(row, settings, prompts, reviser, notes).revisions()
        return {"reviser_model": reviser.name, "diagnosis": reason, "critique": None, "revised": revisions}

    results = reviser.each_row(table, correct, on_progress)
    revised = [(row, result) for row, result in zip(table, results, strict=True) if not isinstance(result, RowReject)]
    chosen = [0] * len(revised)
    if choose:
        chosen = choose([row for row, _ in revised], [result["revised"] for _, result in revised])
    for (_, result), number in zip(revised, chosen, strict=True):
        result["revised"] = result["revised"][number]
    return replace(collect(rows, schema.REVISE, results), notes=dict(sorted(notes.items())))


def several(settings: ReviserSettings) -> bool:
    """Whether a row may have several revisions, of which one has to be chosen."""
    return settings.candidates > 1 and style_of(settings) != "branches"


def check_draft(draft: str, most: float | None) -> None:
    """Refuse a draft that loops: no small correction saves it. Raises RowReject."""
    words = re.findall(r"\w+", draft.lower())
    fours = list(zip(words, words[1:], words[2:], words[3:], strict=False))
    repeated = 1 - len(set(fours)) / len(fours) if len(fours) >= _FEWEST_FOURS else 0.0
    if most is not None and repeated > most:
        raise RowReject("degenerate_draft", repeated=round(repeated, 3), at_most=most)


def style_of(settings: ReviserSettings) -> str:
    """The style that `auto` stands for, or the one that is set."""
    if settings.style != "auto":
        return settings.style
    return "branches" if ModelSpec.parse(settings.model).provider == "local" else "rewrite"


class _RowReviser:
    """The calls about one row; those of `rewrite` and `edits` are turns of one conversation."""

    def __init__(
        self, row: dict[str, Any], settings: ReviserSettings, prompts: Prompts, reviser: ChatModel, notes: Counter[str]
    ) -> None:
        self._settings, self._prompts, self._reviser, self._notes = settings, prompts, reviser, notes
        self._draft: str = row["initial"]
        self._texts = row["messages"], row["reference"], row["initial"]
        self._mark = fence(*self._texts)
        self._seed = row_seed(settings.seed, row["id"])
        self._turns: list[dict[str, str]] = []

    async def revisions(self) -> tuple[str, list[str]]:
        """The diagnosis, and at least one revision, all different. Raises RowReject: the first revision's, if all fail."""
        style = style_of(self._settings)
        if style == "branches":
            return await self._branch()
        reason = await self._diagnose()
        revisions: dict[str, None] = {}
        rejects: list[RowReject] = []
        for number in range(self._settings.candidates):
            correct = self._edit if style == "edits" else self._rewrite
            try:
                revisions[await correct(reason, self._params(number))] = None
            except RowReject as reject:
                rejects.append(reject)
        if not revisions:
            raise rejects[0]
        return reason, list(revisions)

    async def _diagnose(self) -> str:
        question = self._prompt("diagnose")
        params = self._params(first=True) | self._held_to(DIAGNOSIS_FORMAT)
        response = await self._reviser.ask("diagnose", ChatRequest(question, DIAGNOSIS_TOKENS, params))
        self._turns = [*question, {"role": "assistant", "content": response.text}]
        return read_diagnosis(response.text)

    async def _rewrite(self, reason: str, params: dict[str, Any]) -> str:
        """The whole answer again, corrected. Raises RowReject."""
        turns = [*self._turns, *self._prompt(f"revise_{reason}", reason=reason)]
        response = await self._reviser.ask("revise", ChatRequest(turns, self._settings.max_tokens, params))
        if response.finish == "length":
            reject = cut_off("revision_truncated", self._settings.max_tokens, response)
            raise reject.with_columns(diagnosis=reason, revised=response.text)
        return read_revision(response.text, self._mark)

    async def _edit(self, reason: str, params: dict[str, Any]) -> str:
        """The draft with the edits that can be applied; a rewrite when none can. Raises RowReject, with those dropped."""
        turns = [*self._turns, *self._prompt("edits", reason=reason)]
        request = ChatRequest(turns, self._settings.max_tokens, params | self._held_to(edits.FORMAT))
        response = await self._reviser.ask("revise", request)
        # The rest of a script that was cut is unknown.
        script = edits.read_edits(response.text) if response.finish == "stop" else None
        edited = edits.apply_edits(self._draft, script or [], self._unusable)
        self._notes.update("edits_applied" for _ in edited.applied)
        self._notes.update(f"edits_dropped_{dropped.reason}" for dropped in edited.dropped)
        if edited.applied:
            return edited.text
        why = "unreadable" if script is None else "empty" if not script else "none_applied"
        self._notes[f"rewritten_as_edits_{why}"] += 1
        try:
            return await self._rewrite(reason, params)
        except RowReject as reject:
            reject.evidence |= {"edits": why, "edits_dropped": [dropped._asdict() for dropped in edited.dropped]}
            raise

    async def _branch(self) -> tuple[str, list[str]]:
        """The best of the answers from where the model hesitates. Raises RowReject: no_correction, with the refused ones."""
        _, reference, draft = self._texts
        turns = self._prompt("correct")
        params = self._params(first=True) | {"logprobs": True, "top_logprobs": branches.ALTERNATIVES}
        request = ChatRequest(turns, self._settings.max_tokens, params, shared=len(turns) - 1)
        response = await self._reviser.ask("revise", request)
        texts = [response.text] if response.finish == "stop" else []
        for beginning in branches.beginnings(response.logprobs or [], response.text, draft, reference):
            # One after the other: each finds the beginning that it shares with the one before in the prompt cache.
            begun = [*turns, {"role": "assistant", "content": beginning}]
            with suppress(RowReject):
                answer = await self._reviser.ask(
                    "revise", ChatRequest(begun, self._settings.max_tokens, self._params())
                )
                texts += [answer.text] if answer.finish == "stop" else []
        usable = (text.strip() for text in texts if not self._unusable(text))
        revised, refused = branches.best(usable, draft, reference)
        if revised is None:
            raise RowReject("no_correction", refused=refused)
        return branches.diagnosis(draft, revised, reference), [revised]

    def _unusable(self, text: str) -> bool:
        return leaks(text, self._mark) or control_token(text) is not None

    def _prompt(self, name: str, **values: str) -> list[dict[str, str]]:
        messages, reference, draft = self._texts
        return self._prompts.turns(name, messages, reference, draft, **values)

    def _params(self, number: int = 0, *, first: bool = False) -> dict[str, Any]:
        """The parameters of a call for candidate `number`. first: the row's first call."""
        seed = (self._seed + number * _SEED_STEP) % 2**31
        return request_params(self._settings, ModelSpec.parse(self._settings.model), seed, first=first)

    def _held_to(self, form: dict[str, Any]) -> dict[str, Any]:
        return {"response_format": form} if self._settings.structured else {}


def read_diagnosis(answer: str) -> str:
    """The reason that an answer names: as JSON, or as the one of the four words that stands in it."""
    try:
        reason = json.loads(answer)["reason"]
        if reason in REASONS:
            return str(reason)
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    named = {reason for reason in REASONS if re.search(rf"\b{reason.replace('_', '[_ ]')}\b", answer, re.IGNORECASE)}
    if len(named) != 1:
        raise RowReject("diagnosis_unreadable", answer=answer[:200])
    return named.pop()


def read_revision(answer: str, mark: str) -> str:
    """The corrected text: what stands between the tags if the model set them, else the whole answer.

    >>> read_revision("Sure: <revised-0a1b2c3d>Fine.</revised-0a1b2c3d>", "0a1b2c3d")
    'Fine.'
    """
    _, tag, tagged = answer.partition(f"<revised-{mark}>")
    text = tagged.partition(f"</revised-{mark}>")[0] if tag else answer
    if leaks(text, mark):
        raise RowReject("leaked_delimiter", answer=answer[:200])
    text = without_end_tokens(text).strip()
    check_control_tokens(text)
    return text


def leaks(text: str, mark: str) -> bool:
    """Whether a model's text holds one of the prompt's delimiters."""
    return mark in text or bool(_TAG.search(text))
