"""The rows of a CSV or TSV file whose first row names the fields (RFC 4180, by the standard library's parser)."""

import csv
import io
from collections.abc import Iterator

from pipeline.errors import InputError, RowReject
from pipeline.sources.files import Location
from pipeline.sources.row import RawRow
from pipeline.text import replace_surrogates, shown, snippet


def rows(stream: io.BufferedReader, path: Location, delimiter: str, max_row_bytes: int) -> Iterator[tuple[int, RawRow]]:
    """(number of its first line, row or reject). InputError for a header that can't name fields, and for an open quote."""
    csv.field_size_limit(max(csv.field_size_limit(), max_row_bytes))
    # Bytes that are no UTF-8 become lone surrogates, so that they cost one row and not the file.
    text = io.TextIOWrapper(stream, "utf-8", errors="surrogateescape", newline="")
    reader = csv.reader(_capped(text, max_row_bytes), delimiter=delimiter, strict=True)
    try:
        header = _header(next(reader, []), path)
        begins = reader.line_num + 1
        for cells in reader:
            if cells:
                yield begins, _row(header, cells)
            begins = reader.line_num + 1
    except csv.Error as error:
        hint = "is a quote left open, or not doubled, before it, or are the fields not separated by commas?"
        raise InputError(f"{shown(path)}:{reader.line_num}: not CSV ({error}); {hint}") from error


def _capped(text: io.TextIOWrapper, most: int) -> Iterator[str]:
    while line := text.readline(most + 1):
        if len(line) > most and not line.endswith("\n"):
            raise csv.Error(f"a line of over {most:,} characters")
        yield line


def _header(names: list[str], path: Location) -> list[str]:
    twice = [name for name in names if names.count(name) > 1]
    single = len(names) == 1 and any(separator in names[0] for separator in ";\t|")
    if twice or single or not any(names):
        got = f"{snippet(twice[0])} twice" if twice else f"one name, {snippet(names[0])}" if single else "none"
        wanted = "the names of the fields, each once, separated by commas (by tabs in a .tsv)"
        raise InputError(f"{shown(path)}:1: a CSV file's first row must hold {wanted}; got {got}")
    return names


def _row(header: list[str], cells: list[str]) -> RawRow:
    if len(cells) != len(header):
        got = f"{len(cells)} cells: {snippet(cells)}"
        return RowReject("wrong_shape", expected=f"{len(header)} cells, as the header has", got=got)
    for cell in cells:
        if replace_surrogates(cell)[1]:
            return RowReject("invalid_utf8", expected="UTF-8", got=snippet(cell.encode(errors="surrogateescape")))
    return dict(zip(header, cells, strict=True))
