"""The elements of a file that is one JSON array, a megabyte of it at a time: ShareGPT comes as one of 670 MB.

The decoder finds where an element ends. Where it can't, because the element is faulty or goes on behind what was read, the
end is where its brackets close: a faulty element costs only itself.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from typing import Any

from pipeline.errors import RowReject
from pipeline.sources.readers.strict_json import StrictDecoder
from pipeline.sources.text import snippet

_READ_BYTES = 1 << 20
_GAP = re.compile(r"[ \t\r\n]*")
_TOP = re.compile(r'["\[\]{},]')
_BELOW = re.compile(r'["\[\]{}]')
_IN_STRING = re.compile(r'["\\]')
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # bytes that are no UTF-8, as `surrogateescape` decodes them

Value = dict[str, Any] | RowReject


class Broken(Exception):
    """The array can't be followed any further; the text says why."""


class ArrayReader:
    """Reads one array. Memory: twice `max_row_bytes` at most, and that only where an element is so large."""

    def __init__(self, stream: io.BufferedReader, max_row_bytes: int) -> None:
        self._stream, self._most = stream, max_row_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._json = StrictDecoder()
        # Text that was read and from where on it isn't used yet; whether that is all, and ever held what is no UTF-8.
        self._text, self._at, self._ended, self._odd = "", 0, False, False

    def rows(self) -> Iterator[tuple[int, Value]]:
        """(number from 1, object or reject) for every element; Broken where the array itself breaks off."""
        number = 0
        self._next()
        self._at += 1  # the bracket that made it an array
        while self._next() != "]":
            number += 1
            yield number, self._element()
            if self._next() == ",":
                self._at += 1
            elif self._next() != "]":
                raise Broken(f"expected ',' or ']', got {self._here()}")
        self._at += 1
        if self._next(or_end=True):
            raise Broken(f"more text after its end: {self._here()}")

    def _next(self, *, or_end: bool = False) -> str:
        """The first character from here on that isn't white space; here is then where it stands."""
        while True:
            match = _GAP.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                if or_end:
                    return ""
                raise Broken("the file ends")

    def _here(self) -> str:
        return snippet(self._text[self._at : self._at + 20])

    def _more(self) -> bool:
        """Read on, and drop what is used; whether there was more."""
        text = ""
        while not text and not self._ended:
            data = self._stream.read1(_READ_BYTES)
            self._ended = not data
            text = self._utf8.decode(data, final=self._ended)
        self._odd = self._odd or _NOT_UTF8.search(text) is not None
        self._text, self._at = self._text[self._at :] + text, 0
        return bool(text)

    def _element(self) -> Value:
        start = self._at
        value, end = self._json.element(self._text, start)
        if end is None or self._text[start] not in '{["':  # a bare value may go on, too
            size, text = self._bracketed()
            if size > self._most:
                return RowReject("row_too_large", expected=f"at most {self._most:,} bytes", got=f"{size:,} characters")
            value = self._json.whole(text)
        else:
            self._at, text = end, self._text[start:end] if self._odd else ""
        if self._odd and (found := _NOT_UTF8.search(text)):
            got = snippet(text[found.start() : found.start() + 12].encode(errors="surrogateescape"))
            return RowReject("invalid_utf8", expected="UTF-8", got=got)
        return value

    def _bracketed(self) -> tuple[int, str]:
        """Pass an element by its quotes and brackets: its characters, and its text unless they are too many."""
        passed, depth, quoted, at = 0, 0, False, self._at
        is_text = self._text[at] == '"'
        while True:
            found = (_IN_STRING if quoted else _BELOW if depth else _TOP).search(self._text, at)
            if found is None:
                end = len(self._text)
                at = max(at, end)
                if at - self._at > self._most:
                    passed, self._at = passed + end - self._at, end
                at -= self._at
                if not self._more():
                    raise Broken("the file ends within an element")
                continue
            mark, at, ended = found[0], found.end(), False
            if quoted:
                quoted, at = mark != '"', at + (mark == "\\")  # what follows a backslash ends no string
                ended = is_text and not quoted
            elif mark == '"':
                quoted = True
            elif mark in "[{":
                depth += 1
            elif depth:
                depth -= 1
                ended = not depth
            else:
                at, ended = at - 1, True  # the comma or bracket behind a bare value isn't part of it
            if ended:
                break
        size, element = passed + at - self._at, "" if passed else self._text[self._at : at]
        self._at = at
        return size, element
