"""`reward_gain>2 and diagnosis=inaccuracy`: which rows to show. A small grammar, read by hand; nothing is ever evaluated.

condition   comparison, or several joined by `and`
comparison  FIELD OPERATOR VALUE; operators are = != < <= > >= and ~ (contains, any case)
value       a number, or text, in quotes where it has spaces
"""

from __future__ import annotations

import math
import re
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UsageError

_PART = re.compile(r"""\s*(\w+)\s*(<=|>=|!=|==|=|<|>|~)\s*("[^"]*"|'[^']*'|\S+)\s*""")
_AND = re.compile(r"and\s+", re.IGNORECASE)
_COMPARE = {
    "=": pc.equal,
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
GAIN = "reward_gain"
Condition = tuple[str, str, float | str]


def parse(text: str, columns: pa.Schema) -> list[Condition]:
    """The conditions, all of which must hold. Raises UsageError saying where `text` can't be read."""
    conditions: list[Condition] = []
    position = 0
    while position < len(text) or not conditions:
        if conditions:
            joined = _AND.match(text, position)
            if not joined:
                raise _unreadable(text, position, "`and`")
            position = joined.end()
        found = _PART.match(text, position)
        if not found:
            raise _unreadable(text, position, "FIELD OPERATOR VALUE, such as reward_gain>2")
        name, operator, value = found.groups()
        conditions.append(_typed(name, operator, value, columns))
        position = found.end()
    return conditions


def mask(conditions: list[Condition], rows: pa.RecordBatch) -> pa.BooleanArray:
    """Which rows fulfil all conditions; a row without the value doesn't."""
    made = pa.array([True] * len(rows))
    for name, operator, value in conditions:
        column = pc.subtract(rows["reward_revised"], rows["reward_initial"]) if name == GAIN else rows[name]
        if operator == "~":
            held = pc.match_substring(column, str(value), ignore_case=True)
        else:
            held = _COMPARE[operator](*_comparable(column, value))
        made = pc.and_(made, pc.fill_null(held, fill_value=False))
    return made


def matching(conditions: list[Condition], rows: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows that fulfil all conditions, as dicts."""
    made: list[dict[str, Any]] = rows.filter(mask(conditions, rows)).to_pylist() if conditions else rows.to_pylist()
    return made


def _comparable(column: pa.Array, value: float | str) -> tuple[pa.Array, pa.Scalar]:
    """Numbers are compared as they are typed: 0.3 is the float32 that prints so, and 0.5 is less than the integer 1."""
    if isinstance(value, str) or pa.types.is_floating(column.type):
        return column, pa.scalar(value).cast(column.type, safe=False)
    return column.cast(pa.float64(), safe=False), pa.scalar(value, pa.float64())


def _typed(name: str, operator: str, value: str, columns: pa.Schema) -> Condition:
    plain = {field.name: field.type for field in columns if not pa.types.is_nested(field.type)}
    plain[GAIN] = pa.float32()
    if name not in plain:
        raise UsageError(f"--where: no field {name!r}; there are {', '.join(sorted(plain))}")
    if value[0] in "\"'" and value[-1] == value[0] and len(value) > 1:
        value = value[1:-1]
    if pa.types.is_string(plain[name]):
        return name, operator, value
    if pa.types.is_boolean(plain[name]):
        value = {"true": "1", "false": "0"}.get(value.lower(), value)
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if operator == "~" or not math.isfinite(number):
        raise UsageError(
            f"--where: {name} is a number: compare it by = != < <= > >= with a number, not {operator} {value!r}"
        )
    return name, operator, number


def _unreadable(text: str, position: int, expected: str) -> UsageError:
    rest = text[position : position + 40]
    return UsageError(f"--where: expected {expected}, found {rest!r} at character {position + 1}")
