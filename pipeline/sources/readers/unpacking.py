"""Packed files as plain bytes. A damaged file gives out every byte before the damage, then raises.

A few kilobytes can unpack to any number of gigabytes, so there is a cap: in proportion to the bytes that were read.
"""

import bz2
import gzip
import io
from collections.abc import Callable
from typing import Any

from pipeline.errors import InputError
from pipeline.sources.files import Location
from pipeline.text import shown

# Real text packs to a third or a twentieth. What passes both limits is no data, or nearly all repetition.
ALLOWED_BYTES = 1_000_000_000
UNPACKED_A_BYTE = 250
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2"}
_BUFFER = 1 << 18


def unpacked(file: io.BufferedReader, kind: str, path: Location) -> io.BufferedReader:
    """The bytes that are packed in a file. Reading raises OSError, EOFError or zlib.error for damage, InputError for a bomb."""
    openers: dict[str, Callable[[Any], Any]] = {"gzip": gzip.open, "bzip2": bz2.open, "zstd": _Zstd}
    return io.BufferedReader(_Capped(openers[kind](file), file, path), _BUFFER)


class _Capped(io.RawIOBase):
    """The unpacked bytes of `packed.read1`, up to the cap."""

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
        self._file, self._unpacked, self._most = file, 0, _BUFFER
        self._stream = _arrow(file)

    def read1(self, size: int, /) -> bytes:
        try:
            data: bytes = self._stream.read(min(size, self._most))
        except OSError:
            if self._most == 1 or not self._file.seekable():
                raise
            # That read lost what it had already unpacked: start again where it began, byte by byte.
            self._failed = self._stream  # it would close the file when garbage collected
            self._file.seek(0)
            self._stream, self._most, left = _arrow(self._file), 1, self._unpacked
            while left:
                left -= len(self._stream.read(min(left, _BUFFER)))
            return self.read1(size)
        self._unpacked += len(data)
        return data


def _arrow(file: io.BufferedReader) -> Any:
    import pyarrow as pa

    return pa.input_stream(file, compression="zstd")
