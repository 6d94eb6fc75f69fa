"""A file's rows, one at a time, whatever the file is packed with and whatever is wrong with a row.

JSON Lines, a JSON array (in a `.json` file), CSV, TSV or Parquet, by content first and name second. Memory stays constant in
the size of a file: rows are read under a cap, and what exceeds it is skipped unread.
"""

from __future__ import annotations

import contextlib
import io
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import PurePath
from typing import Any, cast

from pipeline.errors import InputError, RowReject
from pipeline.sources.files import PACKED, Location, bare_name
from pipeline.sources.readers import csv_rows, parquet_rows, unpacking
from pipeline.sources.readers.json_array import ArrayReader, Broken
from pipeline.sources.readers.strict_json import StrictDecoder
from pipeline.sources.text import shown, snippet

MAX_ROW_BYTES = 10_000_000
MAX_BLANK_LINES = 1_000_000  # in a row
MAX_SKIP_BYTES = 1_000_000_000  # of one over-long row; beyond it the file isn't made of rows (or is a gzip bomb)
WANTED = f"UTF-8 JSON Lines, CSV or TSV, plain or packed as {', '.join(PACKED)}, or Parquet"

_BOM = b"\xef\xbb\xbf"
_MAGIC = unpacking.MAGIC | {b"PAR1": "parquet"}
_FOREIGN = {
    b"PK\x03\x04": "a zip archive",
    b"\xfd7zXZ": "xz",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
_DELIMITERS = {".csv": ",", ".tsv": "\t"}

Found = tuple[int, dict[str, Any] | RowReject]


class Damaged(InputError):
    """A file that can't be read to its end. The rows before that are good: the reader may offer to take only them."""


def rows(path: Location, warn: Callable[[str], None]) -> Iterator[Found]:
    """(line number, object or reject) for every row of a file, from 1; blank lines are no rows.

    InputError when the file as a whole can't be read; Damaged, with the number of rows before, when it breaks off.
    """
    count = 0
    try:
        with contextlib.closing(_rows(path, warn)) as found_rows:
            for found in found_rows:
                count += 1
                yield found
    except (OSError, EOFError, zlib.error) as error:
        raise Damaged(
            f"{shown(path)}: damaged, cut short or unreadable ({shown(error)}); {count} rows were read before that"
        ) from error


def _rows(path: Location, warn: Callable[[str], None]) -> Generator[Found, None, None]:
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(cast(io.BufferedReader, path.open("rb", 1 << 18)))
        kind = _kind(file.peek(8)[:8], path, warn)
        if kind == "parquet":
            yield from parquet_rows.rows(path, MAX_ROW_BYTES)
            return
        stream = file if kind == "plain" else opened.enter_context(unpacking.unpacked(file, kind, path))
        suffix = PurePath(bare_name(path.name)).suffix
        if suffix in _DELIMITERS:
            yield from csv_rows.rows(stream, path, _DELIMITERS[suffix], MAX_ROW_BYTES)
        else:
            yield from _array(stream, path) if _is_array(stream, path) else _lines(stream, path)


def _kind(head: bytes, path: Location, warn: Callable[[str], None]) -> str:
    """How a file is packed. What the first bytes say goes before what the suffix says."""
    for magic, what in _FOREIGN.items():
        if head.startswith(magic):
            raise InputError(f"{shown(path)}: this is {what}; expected {WANTED}")
    kind = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "plain")
    if kind == "plain" and path.name.lower().endswith(".parquet"):
        raise InputError(f"{shown(path)}: not Parquet, whose files begin with PAR1; this begins with {snippet(head)}")
    if kind == "plain" and path.name.lower().endswith(PACKED):
        if not (_is_table(path) or head.removeprefix(_BOM).lstrip().startswith((b"{", b"["))):
            raise InputError(
                f"{shown(path)}: not a {path.suffix} file, nor JSON Lines (it begins with {snippet(head)}); "
                "get the file again"
            )
        warn(f"{shown(path)}: the name ends with {path.suffix} but the file is not packed; read as plain text")
    return kind


def _is_table(path: Location) -> bool:
    return bare_name(path.name).endswith(tuple(_DELIMITERS))


def _lines(stream: io.BufferedReader, path: Location) -> Iterator[Found]:
    decoder = StrictDecoder()
    number = last = 0
    while line := stream.readline(MAX_ROW_BYTES + 1):
        number += 1
        if len(line) > MAX_ROW_BYTES and not line.endswith(b"\n"):
            size = len(line) + _skip_line(stream, path, number)
            last = number
            yield number, RowReject("row_too_large", expected=f"at most {MAX_ROW_BYTES:,} bytes", got=f"{size:,} bytes")
            continue
        if number == 1:
            line = line.removeprefix(_BOM)
        if line and not line.isspace():
            last = number
            yield number, decoder.line(line)
        elif number - last > MAX_BLANK_LINES:
            raise InputError(f"{shown(path)}:{number}: over {MAX_BLANK_LINES:,} blank lines; expected {WANTED}")


def _skip_line(stream: io.BufferedReader, path: Location, number: int) -> int:
    """Read to the end of the line, keeping nothing; the bytes that were skipped."""
    skipped = 0
    while part := stream.readline(1 << 18):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
        if skipped > MAX_SKIP_BYTES:
            raise InputError(
                f"{shown(path)}:{number}: one row of over {MAX_SKIP_BYTES:,} bytes; expected one JSON object a line"
            )
    return skipped


def _is_array(stream: io.BufferedReader, path: Location) -> bool:
    if ".json" not in (suffix.lower() for suffix in path.suffixes[-2:]):
        return False
    return stream.peek(64).removeprefix(_BOM).lstrip().startswith(b"[")


def _array(stream: io.BufferedReader, path: Location) -> Iterator[Found]:
    """The elements of one JSON array; the number is the element's, from 1."""
    number = 0
    try:
        for number, value in ArrayReader(stream, MAX_ROW_BYTES).rows():
            yield number, value
    except Broken as error:
        raise Damaged(
            f"{shown(path)}: a JSON array that breaks off after element {number}: {error}; {number} rows were read"
        ) from error
