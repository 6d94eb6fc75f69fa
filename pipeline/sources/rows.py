"""A file's rows, one at a time, whatever the file is packed with and whatever is wrong with a row.

JSON Lines, a JSON array (in a `.json` file), one JSON object, CSV, TSV, Parquet or Arrow, by content first and name second.
Memory is constant: rows over a cap are skipped, and what unpacks to far more bytes than were read is refused.
"""

import bz2
import contextlib
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import PurePath
from typing import Any

from pipeline.errors import InputError
from pipeline.sources.files import PACKED, WANTED, Location, Warn, bare_name
from pipeline.sources.readers import csv_rows, json_rows, parquet_rows
from pipeline.sources.row import RawRow
from pipeline.text import shown, snippet

MAX_ROW_BYTES = 10_000_000
# Real text packs to a third or a twentieth. What passes both limits is no data, or nearly all repetition.
ALLOWED_BYTES = 1_000_000_000
UNPACKED_A_BYTE = 250
_BOM = b"\xef\xbb\xbf"
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"PAR1": "parquet"}
_MAGIC |= {b"ARROW1": "arrow", b"\xff\xff\xff\xff": "arrow"}
_UTF_16 = "UTF-16 text, save it as UTF-8"
_LFS = "a Git LFS pointer and not the data, run `git lfs pull` in its folder"
_FOREIGN = {
    b"PK\x03\x04": "a zip archive, unpack it",
    b"\xfd7zXZ": "xz, unpack it",
    b"\xff\xfe": _UTF_16,
    b"\xfe\xff": _UTF_16,
}
_FOREIGN |= {b"version https://git-lfs": _LFS}
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_BUFFER = 1 << 18


class Damaged(InputError):
    """A file that can't be read to its end. The rows before that are good: the reader may offer to take only them."""


def rows(path: Location, warn: Warn) -> Iterator[tuple[int, RawRow]]:
    """(line number from 1, object or reject) per row; InputError for an unreadable file, Damaged for one that breaks off."""
    count = 0
    try:
        for row in _rows(path, warn):
            count += 1
            yield row
    except (OSError, EOFError, zlib.error) as error:
        what = f"damaged, cut short or unreadable ({shown(error)}); {count} rows were read before that"
        raise Damaged(f"{shown(path)}: {what}") from error
    except json_rows.BrokenArray as error:
        what = f"a JSON array that breaks off after element {count}: {error}; {count} rows were read"
        raise Damaged(f"{shown(path)}: {what}") from error


def _rows(path: Location, warn: Warn) -> Iterator[tuple[int, RawRow]]:
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(path.open("rb"))
        kind = _kind(file.peek(32)[:32], path, warn)
        if kind in ("parquet", "arrow"):
            yield from (parquet_rows.rows if kind == "parquet" else parquet_rows.arrow_rows)(path, MAX_ROW_BYTES)
            return
        stream = file
        if kind != "plain":
            openers: dict[str, Callable[[Any], Any]] = {"gzip": gzip.open, "bzip2": bz2.open, "zstd": _Zstd}
            stream = opened.enter_context(io.BufferedReader(_Capped(openers[kind](file), file, path), _BUFFER))
        if stream.peek(3).startswith(_BOM):
            stream.read(3)
        suffix = PurePath(bare_name(path.name)).suffix
        if suffix in _DELIMITERS:
            yield from csv_rows.rows(stream, path, _DELIMITERS[suffix], MAX_ROW_BYTES, warn)
        elif json_rows.is_json_name(path.name) and stream.peek(64).lstrip().startswith(b"["):
            yield from json_rows.array(stream, MAX_ROW_BYTES)
        else:
            yield from json_rows.lines(stream, path, MAX_ROW_BYTES, warn)


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


class _Capped(io.RawIOBase):
    """The unpacked bytes of `packed.read1`. Raises OSError, EOFError or zlib.error for damage, InputError for a bomb."""

    def __init__(self, packed: Any, file: io.BufferedReader, path: Location) -> None:
        self._packed, self._file, self._path = packed, file, path
        self._unpacked = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._packed.read1(len(buffer))
        buffer[: len(data)] = data
        self._unpacked += len(data)
        if self._unpacked > ALLOWED_BYTES and self._unpacked > UNPACKED_A_BYTE * self._file.tell():
            what = f"its first {self._file.tell():,} bytes unpack to over {self._unpacked:,}"
            wanted = f"expected at most {UNPACKED_A_BYTE} a byte. If the data is real, unpack it yourself"
            raise InputError(f"{shown(self._path)}: refused: {what}; {wanted}")
        return len(data)


class _Zstd:
    """By Arrow, which raises for a file that was cut short; python-zstandard reads it as if it had ended there."""

    def __init__(self, file: io.BufferedReader) -> None:
        import pyarrow as pa

        self._open = partial(pa.input_stream, file, compression="zstd")
        self._file, self._stream, self._unpacked, self._most = file, self._open(), 0, _BUFFER

    def read1(self, size: int, /) -> bytes:
        try:
            data: bytes = self._stream.read(min(size, self._most))
        except OSError:
            if self._most == 1 or not self._file.seekable():
                raise
            # That read lost what it had already unpacked: start again where it began, byte by byte.
            self._failed = self._stream  # it would close the file when garbage collected
            self._file.seek(0)
            self._stream, self._most, left = self._open(), 1, self._unpacked
            while left:
                left -= len(self._stream.read(min(left, _BUFFER)))
            return self.read1(size)
        self._unpacked += len(data)
        return data
