"""The elements of a file that is one JSON array, a megabyte of it at a time: ShareGPT comes as one of 670 MB.

An element ends where its quotes and brackets close, whatever is in it, so a faulty element costs only itself.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

from pipeline.errors import RowReject
from pipeline.sources.readers import strict_json
from pipeline.sources.row import RawRow
from pipeline.text import snippet

_READ_BYTES = 1 << 20
_WHITE_SPACE = re.compile(rb"[ \t\r\n]*+")
# What goes on until the next byte that matters: within a string, within brackets, between brackets.
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_IN_BRACKETS = re.compile(rb'[^"\[\]{}]*+')
_BARE = re.compile(rb'[^"\[\]{},]*+')


class Broken(Exception):
    """The array can't be followed any further; the text says why."""


class ArrayReader:
    """Reads one array. Memory: twice `max_row_bytes` at most, and that only where an element is so large."""

    def __init__(self, stream: io.BufferedReader, max_row_bytes: int) -> None:
        self._stream, self._max_row_bytes = stream, max_row_bytes
        # What was read; before `_at` it is used.
        self._data, self._at = b"", 0

    def rows(self) -> Iterator[tuple[int, RawRow]]:
        """(number from 1, object or reject) for every element; Broken where the array itself breaks off."""
        number = 0
        self._next()
        self._at += 1  # the opening bracket
        while self._next() != b"]":
            number += 1
            yield number, self._element()
            if self._next() == b",":
                self._at += 1
            elif self._next() != b"]":
                raise Broken(f"expected ',' or ']', got {self._here()}")
        self._at += 1
        if self._next(may_end=True):
            raise Broken(f"more text after its end: {self._here()}")

    def _next(self, *, may_end: bool = False) -> bytes:
        """Pass white space; the byte behind it, which stays unused."""
        while True:
            self._at = _end(_WHITE_SPACE, self._data, self._at)
            if self._at < len(self._data):
                return self._data[self._at : self._at + 1]
            if not self._read():
                if may_end:
                    return b""
                raise Broken("the file ends")

    def _here(self) -> str:
        return snippet(self._data[self._at : self._at + 20].decode(errors="replace"))

    def _read(self) -> bool:
        """Drop what is used and read on; whether there was more."""
        data = self._stream.read1(_READ_BYTES)
        self._data, self._at = self._data[self._at :] + data, 0
        return bool(data)

    def _element(self) -> RawRow:
        """Pass one element. Of one that is too large nothing is kept while it is passed."""
        at, dropped, depth, in_string = self._at, 0, 0, False
        is_string = self._data[at : at + 1] == b'"'
        ended = False
        while not ended:
            at = _end(_IN_STRING if in_string else _IN_BRACKETS if depth else _BARE, self._data, at)
            mark = self._data[at : at + 1]
            if not mark or mark == b"\\":  # all that was read is passed, but for a backslash whose character is missing
                if at - self._at > self._max_row_bytes:
                    dropped, self._at = dropped + at - self._at, at
                at -= self._at
                if not self._read():
                    raise Broken("the file ends within an element")
                continue
            if mark == b'"':
                in_string = not in_string
                ended = is_string and not in_string
            elif mark in b"[{":
                depth += 1
            elif depth:
                depth -= 1
                ended = not depth
            else:  # the comma or bracket behind a bare value isn't part of it
                break
            at += 1
        size, element = dropped + at - self._at, self._data[self._at : at]
        self._at = at
        if size > self._max_row_bytes:
            limit = f"at most {self._max_row_bytes:,} bytes"
            return RowReject("row_too_large", expected=limit, got=f"{size:,} bytes")
        return strict_json.decode(element)


def _end(pattern: re.Pattern[bytes], data: bytes, start: int) -> int:
    """Where the match ends that begins at `start`; each of these patterns matches everywhere."""
    match = pattern.match(data, start)
    return match.end() if match else start
