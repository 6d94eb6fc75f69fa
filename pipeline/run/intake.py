"""What becomes of a record before it is planned: a row of the run, or a reject with its reason and evidence."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.config.settings import SourceSettings
from pipeline.errors import ConfigError, RowReject
from pipeline.models.thoughts import split_thoughts
from pipeline.schema import row_id
from pipeline.sources import Adapter, Record, SourceRow
from pipeline.sources import checks as curation
from pipeline.sources.checks.near_duplicates import NearDuplicates
from pipeline.text import replace_surrogates, snippet

Row = dict[str, Any]
TakenRow = tuple[Row, RowReject | None]
_SHOWN_TURNS = 6


class Intake:
    """Turns records into rows in reading order, and remembers the queries for duplicates: about 150 bytes per kept row.

    understood: rows of the expected shape. first_bad: the first reject, if any. replaced: lone surrogates that
    became U+FFFD, in `replaced_rows` rows. thinking_rows: those with thoughts in their answers.
    """

    def __init__(self, settings: SourceSettings, adapters: Mapping[str, Adapter]) -> None:
        self.understood = self.replaced = self.replaced_rows = self.thinking_rows = 0
        self.first_bad: RowReject | None = None
        self.adapters = adapters
        self._keep = settings.keep
        self._checks = curation.checks(settings)
        self._near = NearDuplicates(settings.near_duplicates) if settings.near_duplicates else None
        # A 64-bit hash of each kept query, and the id of its row.
        self._kept: dict[int, int] = {}

    def take(self, records: Iterable[Record]) -> list[TakenRow]:
        """All records as rows of the source table, each with the reject if it is one."""
        taken: list[TakenRow] = []
        for record in records:
            number, where, split, _, source = record
            row: Row = {"source": source, "split": split, "source_row": number, "sample_index": 0}
            try:
                self._fill(row, record)
                taken.append((row, None))
            except RowReject as reject:
                reject.evidence.setdefault("where", where)
                # Rows without a query still need an id in the ledger.
                row.setdefault("id", row_id(source, split, [], number))
                # A traceback holds the frame, and with it every row of the shard.
                taken.append((row, reject.with_traceback(None)))
                self.first_bad = self.first_bad or reject
        return taken

    def _fill(self, row: Row, record: Record) -> None:
        if isinstance(record.value, RowReject):
            raise record.value
        parsed = self.adapters[record.source].parse(record.value)
        self.understood += 1
        self.replaced += parsed.replaced_surrogates
        self.replaced_rows += bool(parsed.replaced_surrogates)
        parsed, thoughts = _without_thoughts(parsed)
        self.thinking_rows += thoughts is not None
        row["messages"], row["reference"] = parsed.messages, parsed.reference
        if self._keep:
            row["extra"] = _as_json({name: record.value.get(name) for name in self._keep})
        if parsed.revised is not None:
            row["policy_model"], row["reviser_model"] = self.adapters[record.source].writers
            row |= {name: getattr(parsed, name) for name in ("initial", "revised", "critique")}
            row |= {"diagnosis": parsed.diagnosis or "other", "initial_reasoning": thoughts or None}
        row["id"] = row_id(record.source, record.split, parsed.messages, 0)
        key = hash(tuple((message["role"], message["content"]) for message in parsed.messages))
        if key in self._kept:
            raise RowReject("duplicate_query", duplicate_of=f"{self._kept[key]:016x}")
        self._check(parsed, record, row["id"])
        self._kept[key] = int(row["id"], 16)

    def _check(self, parsed: SourceRow, record: Record, name: str) -> None:
        try:
            for check in self._checks:
                check(parsed)
        except ConfigError as error:  # of a plug-in
            raise ConfigError(f"{error}, at {record.where}") from error
        if self._near is None:
            return
        spoken = "\n".join(m["content"] for m in parsed.messages if m["role"] != "system")
        system = "\n".join(m["content"] for m in parsed.messages if m["role"] == "system")
        signature = self._near.signature(spoken, system)
        if signature is None:
            return
        if similar := self._near.first(signature):
            raise RowReject("near_duplicate", duplicate_of=similar[0], similarity=round(similar[1], 3))
        self._near.keep(name, signature)


def _without_thoughts(parsed: SourceRow) -> tuple[SourceRow, str | None]:
    """The row with what its answers say alone, and what `initial` thought; None where no answer holds thoughts.

    Raises RowReject when a needed answer says nothing.
    """
    names = ("reference", "rejected", "initial", "revised")
    texts = {name: text for name in names if (text := getattr(parsed, name))}
    parts = {name: split_thoughts(text) for name, text in texts.items()}
    said: dict[str, Any] = {name: text.lstrip() or None for name, (text, _) in parts.items() if text != texts[name]}
    if not said:
        return parsed, None
    if empty := [name for name, text in said.items() if text is None and name != "rejected"]:
        raise RowReject(f"empty_{empty[0]}", expected="an answer behind its thoughts", got=snippet(texts[empty[0]]))
    return parsed._replace(**said), parts.get("initial", ("", ""))[1]


def understood(row: Row) -> str:
    """A row as it was read, on one line: its first and last turns, the reference, and the pair if it has one."""
    turns = [f"{message['role']} {snippet(message['content'])}" for message in row["messages"]]
    turns = turns if len(turns) <= _SHOWN_TURNS else [*turns[:3], f"… {len(turns) - 5} more …", *turns[-2:]]
    pair = [f"{part} {snippet(row[part])}" for part in ("initial", "revised") if row.get(part)]
    return " · ".join([*turns, f"→ reference {snippet(row['reference'])}", *pair])


def _as_json(values: dict[str, Any]) -> str:
    """JSON that any reader takes: what JSON doesn't have is text, or null in place of NaN and infinity."""
    finite = json.loads(json.dumps(values, default=str), parse_constant=lambda _: None)
    return replace_surrogates(json.dumps(finite, ensure_ascii=False))[0]
