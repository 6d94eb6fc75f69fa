"""JSON as a row of data: the standard parser, minus what it lets pass.

The standard library takes NaN and Infinity, keeps the last of two equal keys, and answers 100,000 brackets with
RecursionError and 5,000 digits with ValueError. Here each is a RowReject with its reason.
"""

from __future__ import annotations

import json
import math
from typing import Any

from pipeline.errors import RowReject
from pipeline.sources.text import snippet

MAX_DIGITS = 4300  # Python's own default limit, which the environment can switch off


class StrictDecoder:
    """A reusable decoder. Faults inside a value are noted and reported at its end, so that an array's next element
    can still be found; only text that isn't JSON at all leaves no way on."""

    def __init__(self) -> None:
        self._fault: RowReject | None = None
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_constant=self._constant,
            parse_int=self._int,
            parse_float=self._float,
        )

    def line(self, raw: bytes) -> dict[str, Any] | RowReject:
        """The object that a line holds, or why it isn't one."""
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            return RowReject(
                "invalid_utf8", expected="UTF-8", byte=error.start, got=snippet(raw[error.start : error.start + 12])
            )
        value = self.whole(text)
        if isinstance(value, RowReject) and text.lstrip().startswith("["):
            value.evidence["expected"] = "one JSON object a line; a file that is one array of them is named .json"
        return value

    def whole(self, text: str) -> dict[str, Any] | RowReject:
        """The object that a text holds and nothing else, or why it doesn't."""
        text = text.strip(" \t\r\n")
        value, end = self.element(text, 0)
        if end is not None and end < len(text):
            return _malformed(json.JSONDecodeError("Extra data", text, end))
        return value

    def element(self, text: str, start: int) -> tuple[dict[str, Any] | RowReject, int | None]:
        """The object at `start` and where it ends; the end is None when the text can't be followed any further."""
        self._fault = None
        try:
            value, end = self._decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            return _malformed(error), None
        except RecursionError:
            return RowReject(
                "too_deep", expected="an object a few levels deep", got=snippet(text[start : start + 80])
            ), None
        if self._fault is not None:
            return self._fault, end
        if not isinstance(value, dict):
            return RowReject("not_an_object", expected="a JSON object", got=snippet(value)), end
        return value, end

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            self._note("duplicate_key", expected="each key once in an object", got=snippet(twice))
        return value

    def _constant(self, name: str) -> None:
        self._note("not_a_number", expected="finite numbers", got=name)

    def _int(self, digits: str) -> int:
        if len(digits) > MAX_DIGITS:
            self._note("number_too_long", expected=f"at most {MAX_DIGITS} digits", got=f"{len(digits)} digits")
            return 0
        try:
            return int(digits)
        except ValueError:  # the environment may set a lower limit than Python's default
            self._note("number_too_long", expected="fewer digits", got=f"{len(digits)} digits")
            return 0

    def _float(self, digits: str) -> float:
        value = float(digits)
        if math.isinf(value):
            self._note("not_a_number", expected="finite numbers", got=snippet(digits))
        return value

    def _note(self, reason: str, **evidence: Any) -> None:
        if self._fault is None:
            self._fault = RowReject(reason, **evidence)


def _malformed(error: json.JSONDecodeError) -> RowReject:
    near = error.doc[max(0, error.pos - 20) : error.pos + 40]
    got = f"{error.msg} at character {error.pos + 1}: {snippet(near)}"
    return RowReject("malformed_json", expected="one JSON object a line", got=got)
