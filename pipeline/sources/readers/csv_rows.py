"""The rows of a CSV or TSV file whose first row names the fields (RFC 4180, by the standard library's parser).

What the first lines tell of the dialect goes before the file's name, and a run says so: Excel's `sep=;` and other delimiters,
quotes behind backslashes instead of doubled ones, Windows-1252 instead of UTF-8.
"""

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from pipeline.errors import InputError, RowReject
from pipeline.sources.files import Location, Warn
from pipeline.sources.row import RawRow
from pipeline.text import replace_surrogates, shown, snippet

_HEAD_LINES, _HEAD_CHARACTERS = 200, 1_000_000
_DELIMITERS = ",;\t|"
_HINT = re.compile(r"sep=(.)\s*", re.IGNORECASE)


def rows(
    stream: io.BufferedReader, path: Location, delimiter: str, max_row_bytes: int, warn: Warn
) -> Iterator[tuple[int, RawRow]]:
    """(number of its first line, row or reject). InputError for a header that can't name fields, and for an open quote."""
    csv.field_size_limit(max(csv.field_size_limit(), max_row_bytes))
    # Bytes that are no UTF-8 become lone surrogates, so that they cost one row and not the file.
    text = io.TextIOWrapper(stream, "utf-8", errors="surrogateescape", newline="")
    reader, before = csv.reader(()), 0
    try:
        lines = _capped(text, max_row_bytes)
        head = _head(lines)
        if head and (named := _HINT.fullmatch(head[0])):
            delimiter, before, head = named[1], 1, head[1:]
        dialect = _dialect(head, delimiter, path, warn)
        whole = itertools.chain(head, lines)
        reader = csv.reader(map(_recoded, whole) if _is_windows(head, path, warn) else whole, strict=True, **dialect)
        header = _header(next(reader, []), path)
        begins = before + reader.line_num + 1
        for cells in reader:
            if cells:
                yield begins, _row(header, cells)
            begins = before + reader.line_num + 1
    except csv.Error as error:
        hint = "is a quote left open, or not doubled, before it, or are the fields not separated by commas?"
        raise InputError(f"{shown(path)}:{before + reader.line_num}: not CSV ({error}); {hint}") from error


def _head(lines: Iterator[str]) -> list[str]:
    head: list[str] = []
    while len(head) < _HEAD_LINES and sum(map(len, head)) < _HEAD_CHARACTERS and (line := next(lines, "")):
        head.append(line)
    return head


def _dialect(head: list[str], delimiter: str, path: Location, warn: Warn) -> dict[str, Any]:
    """The parser's options: the given delimiter unless it leaves one name and another does not, and what escapes quotes."""
    best = max([delimiter, *_DELIMITERS], key=lambda other: len(_parsed(head[:1], delimiter=other)[:2]))
    if best != delimiter:
        warn(f"{shown(path)}: the fields are separated by {snippet(best)}, read so")
    plain, escaped = {"delimiter": best}, {"delimiter": best, "doublequote": False, "escapechar": "\\"}
    if any('\\"' in line for line in head) and len(_parsed(head, **plain)) < len(_parsed(head, **escaped)):
        warn(f'{shown(path)}: quotes are written as \\" and not doubled, read so')
        return escaped
    return plain


def _parsed(lines: Iterable[str], **dialect: Any) -> list[str]:
    """All cells up to the first line that is not of this dialect."""
    cells: list[str] = []
    with suppress(csv.Error):
        for row in csv.reader(lines, strict=True, **dialect):
            cells += row
    return cells


def _is_windows(head: list[str], path: Location, warn: Warn) -> bool:
    """Whether bytes that are no UTF-8 are Windows-1252: when no other character of the first lines is beyond ASCII."""
    odd = [line for line in head if not line.isascii()]
    if not odd or any(not replace_surrogates(line)[0].replace("\ufffd", "").isascii() for line in odd):
        return False
    warn(f"{shown(path)}: not UTF-8; read as Windows-1252. If it is another encoding, save it as UTF-8")
    return True


def _recoded(line: str) -> str:
    """The line with its undecoded bytes read as Windows-1252."""
    if line.isascii() or not replace_surrogates(line)[1]:
        return line
    return line.encode(errors="surrogateescape").decode("cp1252", errors="surrogateescape")


def _capped(text: io.TextIOWrapper, most: int) -> Iterator[str]:
    while line := text.readline(most + 1):
        if len(line) > most and not line.endswith("\n"):
            raise csv.Error(f"a line of over {most:,} characters")
        yield line


def _header(names: list[str], path: Location) -> list[str]:
    while names and not names[-1]:
        names = names[:-1]
    twice = [name for name in names if name and names.count(name) > 1]
    single = len(names) == 1 and any(separator in names[0] for separator in _DELIMITERS)
    if twice or single or not any(names):
        got = f"{snippet(twice[0])} twice" if twice else f"one name, {snippet(names[0])}" if single else "none"
        wanted = "the names of the fields, each once, separated by commas (by tabs in a .tsv)"
        raise InputError(f"{shown(path)}:1: a CSV file's first row must hold {wanted}; got {got}")
    return names


def _row(header: list[str], cells: list[str]) -> RawRow:
    while len(cells) > len(header) and not cells[-1]:
        cells = cells[:-1]
    if len(cells) != len(header):
        got = f"{len(cells)} cells: {snippet(cells)}"
        return RowReject("wrong_shape", expected=f"{len(header)} cells, as the header has", got=got)
    for cell in cells:
        if replace_surrogates(cell)[1]:
            return RowReject("invalid_utf8", expected="UTF-8", got=snippet(cell.encode(errors="surrogateescape")))
    return dict(zip(header, cells, strict=True))
