"""Texts that are too short or too long to be worth a model's time, and queries in another language than those wanted.

The language is a guess by py3langid (naive Bayes over byte n-grams, a port of langid.py: Lui and Baldwin, ACL 2012 system
demonstrations). It is often wrong about short texts, so a row is rejected only when another language is likely.
"""

from pipeline.config.settings import SourceSettings
from pipeline.errors import ConfigError, RowReject
from pipeline.sources import SourceRow
from pipeline.sources.checks.common import Check, optional
from pipeline.text import did_you_mean

_SURE = 0.8
_READ_CHARS = 2000


def length(settings: SourceSettings) -> Check:
    """A check of the query's and the reference's characters."""

    def check(row: SourceRow) -> None:
        query = sum(len(message["content"]) for message in row.messages)
        _check("query", query, settings.min_query_chars, settings.max_query_chars)
        _check("reference", len(row.reference), settings.min_reference_chars, settings.max_reference_chars)

    return check


def _check(what: str, length: int, least: int, most: int | None) -> None:
    got = f"{length:,} characters"
    if length < least:
        expected = f"at least {least:,} characters (source.min_{what}_chars)"
        raise RowReject(f"{what}_too_short", expected=expected, got=got)
    if most is not None and length > most:
        expected = f"at most {most:,} characters (source.max_{what}_chars)"
        raise RowReject(f"{what}_too_long", expected=expected, got=got)


def language(settings: SourceSettings) -> Check:
    """A check of the query's language. ConfigError for an unknown code."""
    langid = optional("py3langid.langid", "source.languages")
    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    wanted = sorted(set(settings.languages))
    for code in wanted:
        if code not in identifier.labels:
            hint = did_you_mean(code, identifier.labels, 0.5)
            raise ConfigError(f"source.languages: unknown language {code!r}, expected ISO 639-1 codes such as en{hint}")

    def check(row: SourceRow) -> None:
        query = " ".join(message["content"] for message in row.messages if message["role"] == "user")
        got, probability = identifier.classify(query[:_READ_CHARS])
        if got not in wanted and probability >= _SURE:
            sure = round(float(probability), 3)
            raise RowReject("language", expected=" or ".join(wanted), got=got, probability=sure)

    return check
