"""Rows that share a run of words with an evaluation set, which a model trained on them would have seen.

Brown et al., Language Models are Few-Shot Learners, 2020, appendix C: an overlap of 13 words, case and punctuation
aside. A text with fewer words matches only as a whole, and only from five words on: "Yes." proves nothing.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from pipeline.config.settings import SourceSettings
from pipeline.errors import InputError, RowReject
from pipeline.sources import SourceRow, files, rows
from pipeline.sources.checks.check import Check
from pipeline.sources.checks.words import ngrams, words
from pipeline.sources.files import Location
from pipeline.sources.text import replace_surrogates, shown

LEAST_WORDS = 5


def checks(settings: SourceSettings) -> Iterator[Check]:
    """A check against all evaluation files, when some are given. InputError when one can't be read whole."""
    if not settings.decontaminate:
        return
    n, known = settings.decontaminate_words, _known(settings.decontaminate, settings.decontaminate_words)

    def check(row: SourceRow) -> None:
        brought = (row.initial or "", row.revised or "")
        for text in (row.reference, *(message["content"] for message in row.messages), *brought):
            for ngram in _ngrams(text, n):
                if ngram in known:
                    raise RowReject(
                        "contaminated", expected=f"no {n} words of an evaluation set", got=ngram, seen_in=known[ngram]
                    )

    yield check


def _known(inputs: tuple[str, ...], n: int) -> dict[str, str]:
    """Every n-gram of the evaluation sets, and where it stands first."""
    known: dict[str, str] = {}
    for path in (path for given in inputs for path in paths(given)):
        for number, text in _texts(path):
            where = f"{shown(path.name)}:{number}"
            for ngram in _ngrams(text, n):
                known.setdefault(ngram, where)
    return known


def paths(given: str) -> list[Location]:
    """The files of one entry: a file of any name, or a folder's, a glob's or a URL's data files."""
    found = files.find_input(given, lambda message: None)
    if not found:
        raise InputError(f"source.decontaminate: {shown(given)}: no such file or folder")
    return [file.path for file in found]


def _texts(path: Location) -> Iterator[tuple[int, str]]:
    """All texts of a file with their row: those anywhere in a data file's rows, or a text file's lines."""
    if not files.is_data_name(path.name):
        try:
            with path.open("rb") as raw:
                yield from enumerate(io.TextIOWrapper(raw, "utf-8-sig"), 1)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{shown(path)}: not readable as UTF-8 text ({shown(error)})") from error
        return
    for number, value in rows.rows(path, lambda message: None):
        if isinstance(value, RowReject):
            raise InputError(f"{shown(path)}:{number}: {value.reason}, got {value.evidence.get('got')}; mend the file")
        for text in _strings(value):
            yield number, text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield replace_surrogates(value)[0]
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _ngrams(text: str, n: int) -> list[str]:
    found = words(text)
    return ngrams(found, n) if len(found) >= min(n, LEAST_WORDS) else []
