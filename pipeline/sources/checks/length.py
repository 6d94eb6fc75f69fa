"""Texts that are too short or too long to be worth a model's time, in characters."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.config.settings import SourceSettings
from pipeline.errors import RowReject
from pipeline.sources import SourceRow
from pipeline.sources.checks.check import Check


def checks(settings: SourceSettings) -> Iterator[Check]:
    """One check of both lengths; none when no row could fail it."""
    query = (settings.min_query_chars, settings.max_query_chars)
    reference = (settings.min_reference_chars, settings.max_reference_chars)
    if (query, reference) == ((0, None), (0, None)):
        return

    def check(row: SourceRow) -> None:
        _check("query", sum([len(message["content"]) for message in row.messages]), *query)
        _check("reference", len(row.reference), *reference)

    yield check


def _check(what: str, length: int, least: int, most: int | None) -> None:
    if length < least:
        raise RowReject(
            f"{what}_too_short",
            expected=f"at least {least:,} characters (source.min_{what}_chars)",
            got=f"{length:,} characters",
        )
    if most is not None and length > most:
        raise RowReject(
            f"{what}_too_long",
            expected=f"at most {most:,} characters (source.max_{what}_chars)",
            got=f"{length:,} characters",
        )
