"""What the journal is given to write."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.models import journal_tables
from pipeline.models.answer import Answer


class Record(NamedTuple):
    """A row to be written: an answer with its key, or a charge.

    `custom_id`: of the request in a batch that it pays for; `began`: the charge in whose place it stands.
    """

    key: str | None
    row: tuple[object, ...]
    custom_id: str | None = None
    began: int | None = None


def call_number() -> int:
    """Not another call's, in whatever process."""
    return secrets.randbits(62)


def sorted_out(records: Sequence[Record]) -> tuple[dict[str, journal_tables.Row], list[journal_tables.Row]]:
    """Answers by key, and charges. Of two answers to one key in one commit the first was paid for as well."""
    answers: dict[str, journal_tables.Row] = {}
    charges = []
    for record in records:
        if record.key is None:
            charges.append(record.row)
            continue
        if record.key in answers:
            charges.append(journal_tables.replaced(answers[record.key]))
        answers[record.key] = record.row
    return answers, charges


def answered(
    key: str, stage: str, model: str, answer: Answer, cost_usd: float, custom_id: str | None, began: int | None
) -> Record:
    return Record(key, (key, stage, model, answer.to_json(), cost_usd, time.time()), custom_id, began)


def charged(stage: str, model: str, outcome: str, cost_usd: float, certain: bool, number: int | None = None) -> Record:
    return Record(None, (number, stage, model, outcome, cost_usd, certain, time.time()))
