"""Revise: a stronger model says what is wrong with Ŷ, then corrects it as little as possible into Ỹ (paper §3.1).

First the diagnosis, then the correction by one of three styles. `rewrite`, the paper's: a second turn of the same
conversation, with the prompt of the diagnosed reason. It begins with the first turn word for word, which providers' and
llama.cpp's prompt caches make cheap. `edits`: the second turn asks for find/replace edits only (`edits.py`); when none of
them can be applied, it is asked once more, as a rewrite. `sentences`, for small models: the program plans, and diagnoses
(`sentences.py`). Of a row's revisions, `reviser.candidates` or a splice's variants, the best goes on (`candidates.py`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline import schema
from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import REASONS, ReviserSettings
from pipeline.errors import RowReject
from pipeline.models.chat import ChatModel, ChatRequest
from pipeline.models.event_loop import each_row
from pipeline.models.factory import request_params
from pipeline.prompts import Prompts, fence
from pipeline.stages import edits, sentences
from pipeline.stages.candidates import Choose
from pipeline.stages.common import Report, collect, row_seed
from pipeline.storage.stage_files import StageOutput

DIAGNOSIS_TOKENS = 24
# Of fewer runs of four words nobody can say that they loop.
_FEWEST_FOURS = 10
# Apart by more than row seeds of neighbouring `reviser.seed`s are.
_SEED_STEP = 1_000_003


class Texts(NamedTuple):
    """What the reviser sees of a row."""

    messages: list[dict[str, str]]
    reference: str
    draft: str


_DIAGNOSIS_SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "diagnosis",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"reason": {"type": "string", "enum": list(REASONS)}},
            "required": ["reason"],
            "additionalProperties": False,
        },
    },
}


# One of our tags, its mark left out or miscopied: never part of an answer.
_TAG = re.compile(r"</?(?:revised|(?:draft|reference|conversation|sentence|revised)-[0-9a-f]+)>", re.IGNORECASE)


def revise(
    rows: pa.Table,
    settings: ReviserSettings,
    prompts: Prompts,
    reviser: ChatModel,
    report: Report,
    choose: Choose | None = None,
) -> StageOutput:
    """Adds `reviser_model`, `diagnosis`, `revised`. Notes, of edit scripts: edits applied and dropped, rewrites instead.

    choose: which of a row's revisions goes on, where there are `several`; without it the first.

    Rejects: degenerate_draft, diagnosis_unreadable, revision_truncated, leaked_delimiter, and whatever kept a call from an
    answer.
    """
    notes: Counter[str] = Counter()
    table = rows.select(["id", "messages", "reference", "initial", "reward_initial"]).to_pylist()

    async def correct(row: dict[str, Any]) -> dict[str, Any]:
        check_draft(row["initial"], settings.max_repetition)
        texts = Texts(row["messages"], row["reference"], row["initial"])
        seed = row_seed(settings.seed, row["id"])
        reason, revised = await _Asking(reviser, settings, prompts, texts, seed).revisions(notes)
        return {"reviser_model": reviser.name, "diagnosis": reason, "revised": revised}

    with reviser.shard_lock:
        results = each_row(table, correct, workers=reviser.concurrency, done=lambda rejected: report(1, int(rejected)))
        reviser.raise_if_all_failed()
    made = [(row, result) for row, result in zip(table, results, strict=True) if not isinstance(result, RowReject)]
    numbers = choose([row for row, _ in made], [result["revised"] for _, result in made]) if choose else [0] * len(made)
    for (_, result), number in zip(made, numbers, strict=True):
        result["revised"] = result["revised"][number]
    output = collect(rows, schema.REVISE, results)
    return StageOutput(output.rows, output.rejects, dict(sorted(notes.items())))


def several(settings: ReviserSettings) -> bool:
    """Whether a row may have several revisions, of which one has to be chosen."""
    return settings.candidates > 1 or style_of(settings) == "sentences"


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
    return "sentences" if ModelSpec.parse(settings.model).provider == "local" else "rewrite"


class _Asking:
    """The calls about one row: a diagnosis, then one of the styles. All but `by_sentences` are turns of one conversation."""

    def __init__(
        self, reviser: ChatModel, settings: ReviserSettings, prompts: Prompts, texts: Texts, seed: int
    ) -> None:
        self._reviser, self._settings, self._prompts, self._texts = reviser, settings, prompts, texts
        self._spec, self._seed = ModelSpec.parse(settings.model), seed
        self._first_params = request_params(settings, self._spec, seed)
        self._params = request_params(settings, self._spec, seed, first=False)
        self._turns = [{"role": "user", "content": prompts.render("diagnose", *texts)}]

    async def revisions(self, notes: Counter[str]) -> tuple[str, list[str]]:
        """The diagnosis, and different revisions, at least one. Raises RowReject: the first revision's, if all fail."""
        if style_of(self._settings) == "sentences":
            return await self.by_sentences()
        reason = await self.diagnosis()
        made: dict[str, None] = {}
        failed: list[RowReject] = []
        for number in range(self._settings.candidates):
            seed = (self._seed + number * _SEED_STEP) % 2**31
            self._params = request_params(self._settings, self._spec, seed, first=False)
            try:
                edited = self._settings.style == "edits"
                made[await (self.by_edits(reason, notes) if edited else self.rewrite(reason))] = None
            except RowReject as reject:
                failed.append(reject)
        if not made:
            raise failed[0]
        return reason, list(made)

    async def diagnosis(self) -> str:
        params = self._first_params | self._held_to(_DIAGNOSIS_SCHEMA)
        said = await self._reviser.ask("diagnose", ChatRequest(self._turns, DIAGNOSIS_TOKENS, params))
        self._turns = [*self._turns, {"role": "assistant", "content": said.text}]
        return read_diagnosis(said.text)

    async def rewrite(self, reason: str) -> str:
        """The whole answer anew. Raises RowReject."""
        request = self._second(f"revise_{reason}", reason, {})
        given = await self._reviser.ask("revise", request)
        if given.finish == "length":
            reject = RowReject("revision_truncated", max_tokens=request.max_tokens)
            raise reject.keeping(diagnosis=reason, revised=given.text)
        return read_revision(given.text, fence(*self._texts))

    async def by_edits(self, reason: str, notes: Counter[str]) -> str:
        """The draft with the edits that can be applied; a rewrite when none can. Raises RowReject, with those dropped."""
        given = await self._reviser.ask("revise", self._second("edits", reason, self._held_to(edits.SCHEMA)))
        mark = fence(*self._texts)
        # Of a script that was cut nobody knows what the rest would have said.
        script = edits.read_edits(given.text) if given.finish == "stop" else None
        edited = edits.apply_edits(self._texts.draft, script or [], lambda text: leaks(text, mark))
        notes.update("edits_applied" for _ in edited.applied)
        notes.update(f"edits_dropped_{dropped.reason}" for dropped in edited.dropped)
        if edited.applied:
            return edited.text
        why = "unreadable" if script is None else "empty" if not script else "none_applied"
        notes[f"rewritten_as_edits_{why}"] += 1
        try:
            return await self.rewrite(reason)
        except RowReject as reject:
            reject.evidence |= {"edits": why, "edits_dropped": [dropped._asdict() for dropped in edited.dropped]}
            raise

    async def by_sentences(self) -> tuple[str, list[str]]:
        """Mend the draft's sentences one after the other: they share a prompt cache, which parallel calls would split."""
        texts = self._texts
        # The topic is the whole conversation's: a last turn may be no more than "yes, how?".
        topic = " ".join(message["content"] for message in texts.messages)
        plan = sentences.plan(topic, texts.reference, texts.draft)
        mended, params = [], self._first_params
        for piece in plan.pieces:
            text = piece.text
            if piece.ask:
                question = self._prompts.render("sentence", *texts, reason=plan.reason, sentence=text.strip())
                request = ChatRequest([{"role": "user", "content": question}], sentences.ANSWER_TOKENS, params)
                given = await self._reviser.ask("revise", request)
                text, params = sentences.read_repair(given.text, text, cut=given.finish == "length"), self._params
            mended.append(text)
        return plan.reason, sentences.candidates(plan.pieces, mended, texts.reference)

    def _second(self, prompt: str, reason: str, extra: dict[str, Any]) -> ChatRequest:
        question = {"role": "user", "content": self._prompts.render(prompt, *self._texts, reason=reason)}
        return ChatRequest([*self._turns, question], self._settings.max_tokens, self._params | extra)

    def _held_to(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {"response_format": schema} if self._settings.structured else {}


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
    return text.strip()


def leaks(text: str, mark: str) -> bool:
    """Whether a model's text holds one of the prompt's delimiters."""
    return mark in text or bool(_TAG.search(text))
