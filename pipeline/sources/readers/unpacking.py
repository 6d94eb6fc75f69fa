"""Packed files as plain bytes: what can be unpacked before a fault is given out before the fault is told, to the last byte.

A few kilobytes can unpack to any number of gigabytes, so there is a cap: in proportion to the bytes that were read.
"""

from __future__ import annotations

import bz2
import gzip
import io
import zlib
from typing import Any, Protocol, cast

from pipeline.errors import InputError
from pipeline.sources.files import Location
from pipeline.sources.text import shown

# Rows of real text pack to a third or a twentieth. What passes both is no data, or nearly all repetition.
ALLOWED_BYTES = 1_000_000_000
UNPACKED_A_BYTE = 250
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2"}
_BUFFER = 1 << 18


class _Packed(Protocol):
    def read1(self, size: int, /) -> bytes: ...


def unpacked(file: io.BufferedReader, kind: str, path: Location) -> io.BufferedReader:
    """The bytes that are packed in a file. Reading raises OSError, EOFError or zlib.error for damage, InputError for a bomb."""
    packed: _Packed
    if kind == "gzip":
        packed = gzip.GzipFile(fileobj=file, mode="rb")
    elif kind == "bzip2":
        packed = bz2.BZ2File(file, "rb")
    else:
        packed = _Zstd(file)
    return io.BufferedReader(_Capped(packed, file, path), _BUFFER)


class _Capped(io.RawIOBase):
    """Unpacked bytes up to the cap. A fault waits until what came before it is given out; `read1` hands over that much."""

    def __init__(self, packed: _Packed, file: io.BufferedReader, path: Location) -> None:
        self._packed, self._file, self._path = packed, file, path
        self._given = 0
        self._fault: Exception | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        done = 0
        while done < len(buffer) and self._fault is None:
            try:
                data = self._packed.read1(len(buffer) - done)
            except (OSError, EOFError, zlib.error) as error:
                self._fault = error
                break
            if not data:
                break
            buffer[done : done + len(data)] = data
            done += len(data)
        if self._fault is not None and not done:
            raise self._fault
        self._given += done
        self._refuse_bomb()
        return done

    def _refuse_bomb(self) -> None:
        if self._given > ALLOWED_BYTES and self._given > UNPACKED_A_BYTE * self._file.tell():
            raise InputError(
                f"{shown(self._path)}: refused: its first {self._file.tell():,} bytes unpack to over {self._given:,}; "
                f"expected at most {UNPACKED_A_BYTE} a byte. If the data is real, unpack it yourself"
            )


class _Zstd:
    """By Arrow, which tells a file that was cut short; python-zstandard reads it as if it had ended there."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file, self._given, self._most = file, 0, _BUFFER
        self._stream = _arrow(file)

    def read1(self, size: int, /) -> bytes:
        try:
            data = cast(bytes, self._stream.read(min(size, self._most)))
        except OSError:
            if self._most == 1 or not self._file.seekable():
                raise
            self._byte_by_byte()
            return self.read1(size)
        self._given += len(data)
        return data

    def _byte_by_byte(self) -> None:
        """Start again where the failed read began: it lost what it had already unpacked."""
        self._failed = self._stream  # which closes the file when it goes
        self._file.seek(0)
        self._stream, left = _arrow(self._file), self._given
        while left:
            left -= len(self._stream.read(min(left, _BUFFER)))
        self._most = 1


def _arrow(file: io.BufferedReader) -> Any:
    import pyarrow as pa

    return pa.input_stream(file, compression="zstd")
