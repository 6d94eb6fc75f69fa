"""Revise: a stronger model says what is wrong with Ŷ, then corrects it as little as possible into Ỹ (paper §3.1).

First the diagnosis, then the correction by one of two styles. `rewrite`, the paper's: a second turn of the same
conversation, with the prompt of the diagnosed reason. It begins with the first turn word for word, which providers' and
llama.cpp's prompt caches make cheap. `sentences`, for small models: see `sentences.py`.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline import schema
from pipeline.config import REASONS, ReviserSettings
from pipeline.errors import RowReject
from pipeline.models.chat import ChatModel, ChatRequest
from pipeline.models.connect import request_params
from pipeline.models.loop import each_row
from pipeline.models.spec import ModelSpec
from pipeline.prompts import Prompts, fence
from pipeline.stages import sentences
from pipeline.stages.common import Report, collect, row_seed
from pipeline.storage.stagefile import StageOutput

DIAGNOSIS_TOKENS = 24


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
    rows: pa.Table, settings: ReviserSettings, prompts: Prompts, reviser: ChatModel, report: Report
) -> StageOutput:
    """Adds `reviser_model`, `diagnosis`, `revised`.

    Rejects: diagnosis_unreadable, revision_truncated, leaked_delimiter, and whatever kept a call from an answer.
    """
    spec = ModelSpec.parse(settings.model)
    style = settings.style if settings.style != "auto" else ("sentences" if spec.provider == "local" else "rewrite")

    async def correct(row: dict[str, Any]) -> dict[str, Any]:
        texts = Texts(row["messages"], row["reference"], row["initial"])
        seed = row_seed(settings.seed, row["id"])
        params = request_params(settings, spec, seed, first=False)
        opening = {"role": "user", "content": prompts.render("diagnose", *texts)}
        asking = request_params(settings, spec, seed) | {"response_format": _DIAGNOSIS_SCHEMA}
        diagnosing = ChatRequest([opening], DIAGNOSIS_TOKENS, asking)
        said = await reviser.ask("diagnose", diagnosing)
        reason = read_diagnosis(said.text)
        if style == "sentences":
            revised = await _by_sentences(reviser, prompts, texts, reason, params)
        else:
            turns = [opening, {"role": "assistant", "content": said.text}]
            turns.append({"role": "user", "content": prompts.render(f"revise_{reason}", *texts)})
            given = await reviser.ask("revise", ChatRequest(turns, settings.max_tokens, params))
            if given.finish == "length":
                reject = RowReject("revision_truncated", max_tokens=settings.max_tokens)
                raise reject.keeping(diagnosis=reason, revised=given.text)
            revised = read_revision(given.text, fence(*texts))
        return {"reviser_model": reviser.name, "diagnosis": reason, "revised": revised}

    with reviser.turn:
        results = each_row(
            rows.select(["id", "messages", "reference", "initial"]).to_pylist(),
            correct,
            workers=reviser.concurrency,
            done=lambda rejected: report(1, int(rejected)),
        )
    return collect(rows, schema.REVISE, results)


async def _by_sentences(reviser: ChatModel, prompts: Prompts, texts: Texts, reason: str, params: dict[str, Any]) -> str:
    """Mend the draft's sentences one after the other: they share a prompt cache, which parallel calls would split."""
    mended = []
    # The topic is the whole conversation's: a last turn may be no more than "yes, how?".
    topic = " ".join(message["content"] for message in texts.messages)
    for piece in sentences.plan(topic, texts.reference, texts.draft, reason):
        text = piece.text
        if piece.ask:
            question = prompts.render("sentence", *texts, reason=reason, sentence=text.strip())
            request = ChatRequest([{"role": "user", "content": question}], sentences.ANSWER_TOKENS, params)
            given = await reviser.ask("revise", request)
            text = sentences.read_repair(given.text, text, cut=given.finish == "length")
        mended.append(text)
    return sentences.join(mended)


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
    tagged = re.search(rf"<revised-{mark}>(.*?)(?:</revised-{mark}>|\Z)", answer, re.DOTALL)
    text = tagged[1] if tagged else answer
    if mark in text or _TAG.search(text):
        raise RowReject("leaked_delimiter", answer=answer[:200])
    return text.strip()
