"""Texts that are too short or too long to be worth a model's time, in characters."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.config.settings import SourceSettings
from pipeline.errors import RowReject
from pipeline.sources import SourceRow
from pipeline.sources.checks.common import Check


def checks(settings: SourceSettings) -> Iterator[Check]:
    """One check of both lengths."""

    def check(row: SourceRow) -> None:
        query = sum(len(message["content"]) for message in row.messages)
        _check("query", query, settings.min_query_chars, settings.max_query_chars)
        _check("reference", len(row.reference), settings.min_reference_chars, settings.max_reference_chars)

    yield check


def _check(what: str, length: int, least: int, most: int | None) -> None:
    got = f"{length:,} characters"
    if length < least:
        expected = f"at least {least:,} characters (source.min_{what}_chars)"
        raise RowReject(f"{what}_too_short", expected=expected, got=got)
    if most is not None and length > most:
        expected = f"at most {most:,} characters (source.max_{what}_chars)"
        raise RowReject(f"{what}_too_long", expected=expected, got=got)
