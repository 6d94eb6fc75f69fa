"""The source's rows, shared out: the training set's, the held-out queries, and the second reward model's pairs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pipeline.config.loading import load_config
from pipeline.config.settings import SourceSettings
from pipeline.errors import InputError, RowReject
from pipeline.run.intake import Intake
from pipeline.sources import get, records, resolve_source
from tests.replication.sets import CURATION

READ, HELD_OUT_FROM = 1500, 1000


@dataclass(frozen=True, slots=True)
class Shared:
    """queries: {"messages", "reference"} of held-out rows. chosen, rejected: replies of rows nobody else uses."""

    queries: list[dict[str, Any]]
    chosen: list[str]
    rejected: list[str]


def share_out(source_input: str | None, limit: int, count: int) -> Shared:
    """Of the first 1,500 rows: rows below `limit` are the training set's; the first `count` from row 1,000 on that pass the
    training set's own checks, and repeat no earlier query, are held out; preferences come from all others."""
    settings = load_config(CURATION).source
    adapter = get("hh-rlhf")
    source = resolve_source(SourceSettings(name="hh-rlhf", input=source_input, require_full=True), _warn)
    read = list(islice(records(source, warn=_warn), READ))
    results = Intake(settings, {"hh-rlhf": adapter}).take(read)
    taken = [row for row, _ in results]
    refused = {index for index, (_, reject) in enumerate(results) if reject}
    held = [i for i in range(HELD_OUT_FROM, len(read)) if i not in refused][:count]
    if len(held) < count or limit > HELD_OUT_FROM:
        raise InputError(
            f"{source.location}: {len(read)} rows read, {len(held)} of {count} held-out queries found, training set below row "
            f"{limit}; expected {READ} rows of hh-rlhf and --limit at most {HELD_OUT_FROM}"
        )
    known = {str(taken[i]["messages"]) for i in (*range(limit), *held) if "messages" in taken[i]}
    pairs = []
    for record in read[limit:]:
        try:
            row = adapter.parse(record.value)
        except RowReject:
            continue
        if row.rejected and row.rejected != row.reference and str(row.messages) not in known:
            pairs.append((row.reference, row.rejected))
    queries = [{"messages": taken[i]["messages"], "reference": taken[i]["reference"]} for i in held]
    return Shared(queries, [chosen for chosen, _ in pairs], [rejected for _, rejected in pairs])


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)
