"""Rows that share a run of words with an evaluation set, which a model trained on them would have seen.

Brown et al., Language Models are Few-Shot Learners, 2020, appendix C: an overlap of 13 words, case and punctuation
aside. A text with fewer words matches only as a whole, and only from five words on: "Yes." proves nothing.
"""

import io
from collections.abc import Iterator
from typing import Any

from pipeline.config.settings import SourceSettings
from pipeline.errors import InputError, RowReject
from pipeline.sources import SourceRow, files, rows
from pipeline.sources.checks.common import Check, ngrams, words
from pipeline.sources.files import Location
from pipeline.text import replace_surrogates, shown

LEAST_WORDS = 5


def check(settings: SourceSettings) -> Check:
    """A check against all evaluation files. InputError when one can't be read whole, or none has a text."""
    n = settings.decontaminate_words
    # Every n-gram of the evaluation sets, and where it stands first.
    known: dict[str, str] = {}
    blank = True
    for path in (path for entry in settings.decontaminate for path in paths(entry)):
        for number, text in _texts(path):
            blank &= not text.strip()
            for ngram in _ngrams(text, n):
                known.setdefault(ngram, f"{shown(path.name)}:{number}")
    if blank:
        named = ", ".join(map(shown, settings.decontaminate))
        raise InputError(f"source.decontaminate: {named}: no text, so there is nothing to compare with")

    def refuse(row: SourceRow) -> None:
        queries = (message["content"] for message in row.messages)
        for text in (row.reference, *queries, row.initial or "", row.revised or ""):
            for ngram in _ngrams(text, n):
                if ngram in known:
                    expected = f"no {n} words of an evaluation set"
                    raise RowReject("contaminated", expected=expected, got=ngram, seen_in=known[ngram])

    return refuse


def paths(entry: str) -> list[Location]:
    """The files of one entry: a file of any name, or a folder's, a glob's or a URL's data files."""
    listed = files.find_input(entry, lambda message: None)
    if not listed:
        raise InputError(f"source.decontaminate: {shown(entry)}: no such file or folder")
    return [file.path for file in listed]


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
    split = words(text)
    return ngrams(split, n) if len(split) >= min(n, LEAST_WORDS) else []
