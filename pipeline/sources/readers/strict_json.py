"""JSON as a row of data: the standard parser, minus what it lets pass.

The standard library takes NaN and Infinity, keeps the last of two equal keys, and answers 100,000 brackets with
RecursionError and 5,000 digits with ValueError. Here each is a RowReject with its reason.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any

from pipeline.errors import RowReject
from pipeline.sources.row import RawRow
from pipeline.text import snippet

MAX_DIGITS = 4300  # Python's own default limit, which the environment can change


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
