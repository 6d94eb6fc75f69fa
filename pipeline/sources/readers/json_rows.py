"""The rows of JSON Lines, of JSON arrays and of whole JSON documents, by the standard parser, minus what it lets pass.

The standard library takes Infinity, keeps the last of two equal keys, and answers 100,000 brackets with RecursionError and
5,000 digits with ValueError. Here each is a RowReject with its reason. NaN, which pandas writes for no value, is null.

An array is read a megabyte at a time, because ShareGPT comes as one of 670 MB. An element of it ends where its quotes and
brackets close, whatever is in it, so a faulty element costs only itself. A document is one object over several lines: a row,
several of them, or the rows under a name or as columns; it is held in memory, and so has a limit.
"""

import io
import json
import math
import re
import sys
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from pipeline.errors import InputError, RowReject
from pipeline.sources.files import WANTED, Location, Warn
from pipeline.sources.row import RawRow
from pipeline.sources.turns import CONVERSATIONS
from pipeline.text import shown, snippet

MAX_BLANK_LINES = 1_000_000  # one after the other
MAX_DOCUMENT_BYTES = 100_000_000
MAX_SKIP_BYTES = 1_000_000_000  # of one over-long row; beyond it the file isn't made of rows (or is a gzip bomb)
MAX_DIGITS = 4300  # Python's own default limit, which the environment can change
_READ_BYTES = 1 << 20
_WHITE_SPACE = b" \t\r\n"
_MARK = re.compile(rb'["\[\]{},]')
_STRING_END = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_OPENING, _CLOSING, _ENDS = (b"[", b"{"), (b"]", b"}"), (b",", b"]", b"}")


def lines(stream: io.BufferedReader, path: Location, max_row_bytes: int, warn: Warn) -> Iterator[tuple[int, RawRow]]:
    """(line number from 1, object or reject); blank lines are no rows. InputError for what isn't made of rows.

    What begins with a bracket alone on its line, or in a .json file with a part of an object, is a document.
    """
    number = last = 0
    while line := stream.readline(max_row_bytes + 1):
        number += 1
        if not last and _may_be_document(line.strip(), stream, path):
            rest = stream.read(MAX_DOCUMENT_BYTES)
            if rows := _document(line + rest, path, warn):
                yield from enumerate(rows, 1)
                return
            stream = io.BufferedReader(io.BytesIO(rest))
        if len(line) > max_row_bytes and not line.endswith(b"\n"):
            size = len(line) + _skip_line(stream, path, number)
            last = number
            yield number, _too_large(size, max_row_bytes)
        elif not line.isspace():
            last = number
            value = decode(line)
            if isinstance(value, RowReject) and line.lstrip().startswith(b"["):
                value.evidence["expected"] = "one JSON object a line; a file that is one array of them is named .json"
            yield number, value
        elif number - last > MAX_BLANK_LINES:
            raise InputError(f"{shown(path)}:{number}: over {MAX_BLANK_LINES:,} blank lines; expected {WANTED}")


def is_json_name(name: str) -> bool:
    """Whether a file's name ends with .json, perhaps packed."""
    return ".json" in (suffix.lower() for suffix in PurePath(name).suffixes[-2:])


def _may_be_document(line: bytes, stream: io.BufferedReader, path: Location) -> bool:
    """Whether a file's first line begins an object that goes on, or is all of a .json file."""
    if not line.startswith(b"{") or not is_json_name(path.name):
        return line == b"{"
    return not line.endswith(b"}") or not stream.peek(1)


def _document(data: bytes, path: Location, warn: Warn) -> list[RawRow]:
    """The rows of one JSON object, or of several one after the other; none where the lines are not such, or InputError."""
    if len(data) > MAX_DOCUMENT_BYTES:
        hint = "write its rows as JSON Lines, one object a line"
        raise InputError(f"{shown(path)}: one JSON object of over {MAX_DOCUMENT_BYTES:,} bytes; {hint}")
    objects: list[RawRow] = []
    text, at = data.decode(errors="surrogateescape").strip(), 0
    while at < len(text):
        try:
            _, end = _DECODER.raw_decode(text, at)
        except (RowReject, ValueError, RecursionError) as error:
            if data.lstrip().split(b"\n", 1)[0].strip() != b"{":
                return []
            what = f"{error.reason} {error.evidence}" if isinstance(error, RowReject) else shown(error)
            raise InputError(f"{shown(path)}: a JSON object over several lines that can't be read: {what}") from error
        objects.append(decode(text[at:end].encode(errors="surrogateescape")))
        at = len(text) - len(text[end:].lstrip())
    rows, how = _unwrapped(objects[0], path) if len(objects) == 1 and isinstance(objects[0], dict) else (objects, "")
    if how:
        warn(f"{shown(path)}: one JSON object; its rows are {how}")
    return rows


def _unwrapped(value: dict[str, Any], path: Location) -> tuple[list[Any], str]:
    """The rows that one object holds, and how it holds them; itself, and nothing, when it is a row."""
    cells = list(value.values())
    columns, data = value.get("columns"), value.get("data")
    if isinstance(columns, list) and isinstance(data, list) and all(isinstance(cell, list) for cell in data):
        return [dict(zip(map(str, columns), cell, strict=False)) for cell in data], "lists, with names in 'columns'"
    tables = [name for name, cell in value.items() if isinstance(cell, list) and cell and all(map(_is_row, cell))]
    tables = [name for name in tables if name not in CONVERSATIONS or set(value[name][0]) & set(CONVERSATIONS)]
    if len(tables) > 1:
        what = f"one JSON object with several lists of rows, {', '.join(map(snippet, tables))}"
        raise InputError(f"{shown(path)}: {what}; write one to a file of its own")
    if tables:
        return value[tables[0]], f"those in {snippet(tables[0])}"
    if cells and all(map(_is_row, cells)):
        if not all(key.isdigit() for cell in cells for key in cell):
            return cells, "its values"
        keys = dict.fromkeys(key for cell in cells for key in cell)
        whole = [{name: cell.get(key) for name, cell in value.items()} for key in keys]
        return whole, "its columns, as pandas writes them"
    lists = all(isinstance(cell, list) and not any(isinstance(item, dict) for item in cell) for cell in cells)
    if len(cells) > 1 and lists and len({len(cell) for cell in cells}) == 1:
        return [dict(zip(value, row, strict=True)) for row in zip(*cells, strict=True)], "its columns, a list each"
    return [value], ""


def _is_row(value: object) -> bool:
    """Whether a value is an object that is no turn of a conversation."""
    return isinstance(value, dict) and bool(value) and not {"role", "from", "content", "value"} & set(value)


def _skip_line(stream: io.BufferedReader, path: Location, number: int) -> int:
    """Read to the end of the line, keeping nothing; the bytes that were skipped."""
    skipped = 0
    while part := stream.readline(1 << 18):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
        if skipped > MAX_SKIP_BYTES:
            where = f"{shown(path)}:{number}"
            raise InputError(f"{where}: one row of over {MAX_SKIP_BYTES:,} bytes; expected one JSON object a line")
    return skipped


class BrokenArray(Exception):
    """The array can't be followed any further; the text says why."""


def array(stream: io.BufferedReader, max_row_bytes: int) -> Iterator[tuple[int, RawRow]]:
    """(number from 1, object or reject) per element; BrokenArray where the array breaks off. Memory: a row and two reads."""
    while stream.read(1) not in (b"[", b""):
        pass
    number = depth = size = 0
    element, closed = bytearray(), False  # the bytes of the current element, and whether its brackets are closed
    pieces = _pieces(stream)
    for piece, mark in pieces:
        text = piece
        if not closed:
            bare = not depth and mark in _ENDS  # the mark behind a bare value isn't part of it
            text = (text if size else text.lstrip(_WHITE_SPACE)) + (b"" if bare else mark)
            size += len(text)
            element += text if size <= max_row_bytes else b""
            depth += 0 if bare else (mark in _OPENING) - (mark in _CLOSING)
            closed = bare or (mark in _CLOSING and not depth)
            if closed and (size or mark == b","):
                number += 1
                yield number, decode(bytes(element)) if size <= max_row_bytes else _too_large(size, max_row_bytes)
            if not bare:
                continue
            text = b""
        if text.strip(_WHITE_SPACE) or mark not in (b"", b",", b"]"):
            raise BrokenArray(f"expected ',' or ']', got {_shown(text + mark)}")
        if mark == b"]":
            break
        if mark == b",":
            element, size, closed = bytearray(), 0, False
    else:
        raise BrokenArray("the file ends")
    if more := next((text + mark for text, mark in pieces if (text + mark).strip(_WHITE_SPACE)), b""):
        raise BrokenArray(f"more text after its end: {_shown(more)}")


def _pieces(stream: io.BufferedReader) -> Iterator[tuple[bytes, bytes]]:
    """All bytes in pieces: text, and the quote, or the bracket or comma outside of quotes, that follows it (if any)."""
    in_string, rest = False, b""
    while read := stream.read1(_READ_BYTES):
        data, at = rest + read, 0
        unpaired = (len(data) - len(data.rstrip(b"\\"))) % 2  # a backslash whose character is not read yet
        data, rest = data[: len(data) - unpaired], data[len(data) - unpaired :]
        while at < len(data):
            match = _STRING_END.match(data, at) if in_string else _MARK.search(data, at)
            end = match.end() if match else len(data)
            mark = data[end - 1 : end] if match else b""
            yield data[at : end - len(mark)], mark
            in_string ^= mark == b'"'
            at = end


def _shown(text: bytes) -> str:
    return snippet(text.strip(_WHITE_SPACE)[:20].decode(errors="replace"))


def _too_large(size: int, most: int) -> RowReject:
    return RowReject("row_too_large", expected=f"at most {most:,} bytes", got=f"{size:,} bytes")


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
    if name == "NaN":
        return
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
