"""A file's rows, one at a time, whatever the file is packed with and whatever is wrong with a row.

JSON Lines, a JSON array (in a `.json` file), CSV, TSV or Parquet, by content first and name second. Memory stays constant in
the size of a file: rows are read under a cap, and what exceeds it is skipped.
"""

import contextlib
import zlib
from collections.abc import Generator, Iterator
from pathlib import PurePath

from pipeline.errors import InputError
from pipeline.sources.files import PACKED, WANTED, Location, Warn, bare_name
from pipeline.sources.readers import csv_rows, json_rows, parquet_rows, unpacking
from pipeline.sources.row import RawRow
from pipeline.text import shown, snippet

MAX_ROW_BYTES = 10_000_000

_BOM = b"\xef\xbb\xbf"
_MAGIC = unpacking.MAGIC | {b"PAR1": "parquet"}
_UTF_16 = dict.fromkeys((b"\xff\xfe", b"\xfe\xff"), "UTF-16 text")
_FOREIGN = {b"PK\x03\x04": "a zip archive", b"\xfd7zXZ": "xz"} | _UTF_16
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


class Damaged(InputError):
    """A file that can't be read to its end. The rows before that are good: the reader may offer to take only them."""


def rows(path: Location, warn: Warn) -> Iterator[tuple[int, RawRow]]:
    """(line number, object or reject) for every row of a file, from 1; blank lines are no rows.

    InputError when the file as a whole can't be read; Damaged, with the number of rows before, when it breaks off.
    """
    count = 0
    try:
        with contextlib.closing(_rows(path, warn)) as numbered:
            for row in numbered:
                count += 1
                yield row
    except (OSError, EOFError, zlib.error) as error:
        what = f"damaged, cut short or unreadable ({shown(error)}); {count} rows were read before that"
        raise Damaged(f"{shown(path)}: {what}") from error
    except json_rows.BrokenArray as error:
        what = f"a JSON array that breaks off after element {count}: {error}; {count} rows were read"
        raise Damaged(f"{shown(path)}: {what}") from error


def _rows(path: Location, warn: Warn) -> Generator[tuple[int, RawRow], None, None]:
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(path.open("rb"))
        kind = _kind(file.peek(8)[:8], path, warn)
        if kind == "parquet":
            yield from parquet_rows.rows(path, MAX_ROW_BYTES)
            return
        stream = file if kind == "plain" else opened.enter_context(unpacking.unpacked(file, kind, path))
        if stream.peek(3).startswith(_BOM):
            stream.read(3)
        suffix = PurePath(bare_name(path.name)).suffix
        may_be_array = ".json" in (suffix.lower() for suffix in PurePath(path.name).suffixes[-2:])
        if suffix in _DELIMITERS:
            yield from csv_rows.rows(stream, path, _DELIMITERS[suffix], MAX_ROW_BYTES)
        elif may_be_array and stream.peek(64).lstrip().startswith(b"["):
            yield from json_rows.array(stream, MAX_ROW_BYTES)
        else:
            yield from json_rows.lines(stream, path, MAX_ROW_BYTES)


def _kind(head: bytes, path: Location, warn: Warn) -> str:
    """How a file is packed. What the first bytes say goes before what the suffix says."""
    for magic, what in _FOREIGN.items():
        if head.startswith(magic):
            raise InputError(f"{shown(path)}: this is {what}; expected {WANTED}")
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if path.name.lower().endswith(".parquet"):
        raise InputError(f"{shown(path)}: not Parquet, whose files begin with PAR1; this begins with {snippet(head)}")
    packed = PurePath(path.name).suffix
    if packed.lower() in PACKED:
        is_table = bare_name(path.name).endswith(tuple(_DELIMITERS))
        if not is_table and not head.removeprefix(_BOM).lstrip().startswith((b"{", b"[")):
            what = f"not a {packed} file, nor JSON Lines (it begins with {snippet(head)})"
            raise InputError(f"{shown(path)}: {what}; get the file again")
        warn(f"{shown(path)}: the name ends with {packed} but the file is not packed; read as plain text")
    return "plain"
