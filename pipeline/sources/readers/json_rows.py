"""The rows of JSON Lines and of JSON arrays, by the standard parser, minus what it lets pass.

The standard library takes NaN and Infinity, keeps the last of two equal keys, and answers 100,000 brackets with
RecursionError and 5,000 digits with ValueError. Here each is a RowReject with its reason.

An array is read a megabyte at a time, because ShareGPT comes as one of 670 MB. An element of it ends where its quotes and
brackets close, whatever is in it, so a faulty element costs only itself.
"""

from __future__ import annotations

import io
import json
import math
import re
import sys
from collections.abc import Iterator
from typing import Any

from pipeline.errors import InputError, RowReject
from pipeline.sources.files import WANTED, Location
from pipeline.sources.row import RawRow
from pipeline.text import shown, snippet

MAX_BLANK_LINES = 1_000_000  # one after the other
MAX_SKIP_BYTES = 1_000_000_000  # of one over-long row; beyond it the file isn't made of rows (or is a gzip bomb)
MAX_DIGITS = 4300  # Python's own default limit, which the environment can change
_READ_BYTES = 1 << 20
_WHITE_SPACE = re.compile(rb"[ \t\r\n]*+")
# What goes on until the next byte that matters: within a string, within brackets, between brackets.
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_IN_BRACKETS = re.compile(rb'[^"\[\]{}]*+')
_BARE = re.compile(rb'[^"\[\]{},]*+')


def lines(stream: io.BufferedReader, path: Location, max_row_bytes: int) -> Iterator[tuple[int, RawRow]]:
    """(line number from 1, object or reject); blank lines are no rows. InputError for what isn't made of rows."""
    number = last = 0
    while line := stream.readline(max_row_bytes + 1):
        number += 1
        if len(line) > max_row_bytes and not line.endswith(b"\n"):
            size = len(line) + _skip_line(stream, path, number)
            last = number
            yield number, RowReject("row_too_large", expected=f"at most {max_row_bytes:,} bytes", got=f"{size:,} bytes")
        elif not line.isspace():
            last = number
            value = decode(line)
            if isinstance(value, RowReject) and line.lstrip().startswith(b"["):
                value.evidence["expected"] = "one JSON object a line; a file that is one array of them is named .json"
            yield number, value
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


class BrokenArray(Exception):
    """The array can't be followed any further; the text says why."""


class ArrayReader:
    """Reads one array. Memory: twice `max_row_bytes` at most, and that only where an element is so large."""

    def __init__(self, stream: io.BufferedReader, max_row_bytes: int) -> None:
        self._stream, self._max_row_bytes = stream, max_row_bytes
        # What was read; before `_at` it is used.
        self._data, self._at = b"", 0

    def rows(self) -> Iterator[tuple[int, RawRow]]:
        """(number from 1, object or reject) for every element; BrokenArray where the array itself breaks off."""
        number = 0
        self._next()
        self._at += 1  # the opening bracket
        while self._next() != b"]":
            number += 1
            yield number, self._element()
            if self._next() == b",":
                self._at += 1
            elif self._next() != b"]":
                raise BrokenArray(f"expected ',' or ']', got {self._here()}")
        self._at += 1
        if self._next(may_end=True):
            raise BrokenArray(f"more text after its end: {self._here()}")

    def _next(self, *, may_end: bool = False) -> bytes:
        """Pass white space; the byte behind it, which stays unused."""
        while True:
            self._at = _end(_WHITE_SPACE, self._data, self._at)
            if self._at < len(self._data):
                return self._data[self._at : self._at + 1]
            if not self._read():
                if may_end:
                    return b""
                raise BrokenArray("the file ends")

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
                    raise BrokenArray("the file ends within an element")
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
        return decode(element)


def _end(pattern: re.Pattern[bytes], data: bytes, start: int) -> int:
    """Where the match ends that begins at `start`; each of these patterns matches everywhere."""
    match = pattern.match(data, start)
    return match.end() if match else start


def decode(raw: bytes) -> RawRow:
    """The one JSON object that `raw` holds, or why it doesn't."""
    text = ""
    try:
        text = raw.decode().strip(" \t\r\n")
        value = _DECODER.decode(text)
    except UnicodeDecodeError as error:
        got = snippet(raw[error.start : error.start + 12])
        return RowReject("invalid_utf8", expected="UTF-8", byte=error.start, got=got)
    except json.JSONDecodeError as error:
        near = snippet(text[max(0, error.pos - 20) : error.pos + 40])
        got = f"{error.msg} at character {error.pos + 1}: {near}"
        return RowReject("malformed_json", expected="one JSON object a line", got=got)
    except RecursionError:
        return RowReject("too_deep", expected="an object a few levels deep", got=snippet(text[:80]))
    except RowReject as reject:
        return reject.with_traceback(None)
    if not isinstance(value, dict):
        return RowReject("not_an_object", expected="a JSON object", got=snippet(value))
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise RowReject("duplicate_key", expected="each key once in an object", got=snippet(key))
        value[key] = item
    return value


def _constant(name: str) -> None:
    raise RowReject("not_a_number", expected="finite numbers", got=name)


def _int(digits: str) -> int:
    most = min(MAX_DIGITS, sys.get_int_max_str_digits() or MAX_DIGITS)
    if len(digits) > most:
        raise RowReject("number_too_long", expected=f"at most {most} digits", got=f"{len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise RowReject("not_a_number", expected="finite numbers", got=snippet(digits))
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_int=_int, parse_float=_float)
