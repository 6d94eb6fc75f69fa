"""Which rows leave before money is spent on them, each with a reason and evidence.

    length               too short, too long
    language             in another language than those wanted
    plugins              whatever a user's own functions refuse
    decontaminate        shares a run of words with an evaluation set
    near_duplicates      says nearly what an earlier row says

Exact duplicates are rejected where rows get their ids (`run/intake.py`). This package reads no source and writes no file.
"""

from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pipeline.config.settings import SourceSettings
from pipeline.errors import ConfigError, RowReject
from pipeline.sources import SourceRow, files
from pipeline.sources.checks import decontaminate, plugins
from pipeline.sources.checks.common import Check, optional
from pipeline.text import did_you_mean

# Raise when a check decides otherwise about the same row.
CODE = 2
# The language is guessed by py3langid (naive Bayes over byte n-grams, a port of langid.py: Lui and Baldwin, ACL 2012 system
# demonstrations). It is often wrong about short texts, so a row is rejected only when another language is likely.
_SURE = 0.8
_READ_CHARS = 2000


def checks(settings: SourceSettings) -> list[Check]:
    """The checks that the settings name, cheapest first. UsageError for what can't be loaded or read."""
    named: list[Check] = [partial(_length, settings)]
    if settings.languages:
        named.append(_language(settings))
    named += [plugins.check(name) for name in settings.plugins]
    if settings.decontaminate:
        named.append(decontaminate.check(settings))
    return named


def identity(settings: SourceSettings) -> list[Any]:
    """What the checks decide by beyond the settings themselves: files' content, code, library versions."""
    parts: list[Any] = [CODE, *(plugins.identity(name) for name in settings.plugins)]
    parts += [files.content(path) for entry in settings.decontaminate for path in decontaminate.paths(entry)]
    if settings.languages:
        parts.append(_version("py3langid"))
    if settings.near_duplicates is not None:
        parts.append(_version("rensa"))
    return parts


def _version(package: str) -> list[str]:
    try:
        return [package, version(package)]
    except PackageNotFoundError:  # the check itself says what to install
        return [package]


def _length(settings: SourceSettings, row: SourceRow) -> None:
    query = sum(len(message["content"]) for message in row.messages)
    for what, length in (("query", query), ("reference", len(row.reference))):
        least, most = getattr(settings, f"min_{what}_chars"), getattr(settings, f"max_{what}_chars")
        got = f"{length:,} characters"
        if length < least:
            expected = f"at least {least:,} characters (source.min_{what}_chars)"
            raise RowReject(f"{what}_too_short", expected=expected, got=got)
        if most is not None and length > most:
            expected = f"at most {most:,} characters (source.max_{what}_chars)"
            raise RowReject(f"{what}_too_long", expected=expected, got=got)


def _language(settings: SourceSettings) -> Check:
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
