"""Which language a query is in, by py3langid (naive Bayes over byte n-grams, a port of langid.py).

Lui and Baldwin, langid.py: An Off-the-shelf Language Identification Tool, ACL 2012 system demonstrations. Short texts
are often told wrongly: a row leaves only when another language is likely.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from pipeline.config.settings import SourceSettings
from pipeline.errors import ConfigError, RowReject
from pipeline.sources import SourceRow
from pipeline.sources.checks.check import Check, optional

_SURE = 0.8
_READ_CHARS = 2000


def checks(settings: SourceSettings) -> Iterator[Check]:
    """A check of the query's language, when languages are given. ConfigError for a code that isn't known."""
    if not settings.languages:
        return
    langid = optional("py3langid.langid", "source.languages")
    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    wanted = set(settings.languages)
    for code in sorted(wanted - set(identifier.labels)):
        near = difflib.get_close_matches(code, identifier.labels, 1, 0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"source.languages: unknown language {code!r}, expected ISO 639-1 codes such as en{hint}")

    def check(row: SourceRow) -> None:
        said = " ".join(message["content"] for message in row.messages if message["role"] == "user")
        language, probability = identifier.classify(said[:_READ_CHARS])
        if language not in wanted and probability >= _SURE:
            raise RowReject(
                "language", expected=" or ".join(sorted(wanted)), got=language, probability=round(float(probability), 3)
            )

    yield check
