"""Which language a query is in, by py3langid (naive Bayes over byte n-grams, a port of langid.py).

Lui and Baldwin, langid.py: An Off-the-shelf Language Identification Tool, ACL 2012 system demonstrations. It is often wrong
about short texts, so a row is rejected only when another language is likely.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.config.settings import SourceSettings
from pipeline.errors import ConfigError, RowReject
from pipeline.sources import SourceRow
from pipeline.sources.checks.common import Check, optional
from pipeline.text import did_you_mean

_SURE = 0.8
_READ_CHARS = 2000


def checks(settings: SourceSettings) -> Iterator[Check]:
    """A check of the query's language, when languages are set. ConfigError for an unknown code."""
    if not settings.languages:
        return
    langid = optional("py3langid.langid", "source.languages")
    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    wanted = set(settings.languages)
    for code in sorted(wanted - set(identifier.labels)):
        hint = did_you_mean(code, identifier.labels, 0.5)
        raise ConfigError(f"source.languages: unknown language {code!r}, expected ISO 639-1 codes such as en{hint}")

    def check(row: SourceRow) -> None:
        query = " ".join(message["content"] for message in row.messages if message["role"] == "user")
        language, probability = identifier.classify(query[:_READ_CHARS])
        if language not in wanted and probability >= _SURE:
            expected = " or ".join(sorted(wanted))
            raise RowReject("language", expected=expected, got=language, probability=round(float(probability), 3))

    yield check
