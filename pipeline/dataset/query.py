"""`reward_gain>2 and diagnosis=inaccuracy`: which rows to show. A small grammar, read by hand; nothing is ever evaluated.

condition   comparison, or several joined by `and`
comparison  FIELD OPERATOR VALUE; operators are = != < <= > >= and ~ (contains, any case)
value       a number, or text, in quotes where it has spaces

Fields are the columns, `reward_gain`, and `prompt`, the texts of all messages. Lists are compared as text, by ~ alone.
"""

import math
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UsageError

_COMPARISON = re.compile(r"""\s*(\w+)\s*(<=|>=|!=|==|=|<|>|~)\s*("[^"]*"|'[^']*'|\S+)\s*""")
_AND = re.compile(r"and\s+", re.IGNORECASE)
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "~": lambda text, part: part.lower() in text.lower(),
}
_GAIN, _PROMPT = "reward_gain", "prompt"
Condition = tuple[str, str, float | str]


def parse(text: str, columns: pa.Schema) -> list[Condition]:
    """The conditions, all of which must hold. Raises UsageError saying where `text` can't be read."""
    conditions: list[Condition] = []
    position = 0
    while True:
        comparison = _COMPARISON.match(text, position)
        if not comparison:
            raise _unreadable(text, position, "FIELD OPERATOR VALUE, such as reward_gain>2")
        name, symbol, value = comparison.groups()
        conditions.append(_typed(name, symbol, value, columns))
        if comparison.end() == len(text):
            return conditions
        joined = _AND.match(text, comparison.end())
        if not joined:
            raise _unreadable(text, comparison.end(), "`and`")
        position = joined.end()


def columns_of(conditions: Sequence[Condition]) -> list[str]:
    """The columns that `matches` needs."""
    of = {_GAIN: ("reward_revised", "reward_initial"), _PROMPT: ("messages",)}
    return [column for name, _, _ in conditions for column in of.get(name, (name,))]


def matching(conditions: Sequence[Condition], rows: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows that fulfil all conditions, as dicts."""
    matched: list[dict[str, Any]] = rows.filter(pa.array(matches(conditions, rows))).to_pylist()
    return matched


def matches(conditions: Sequence[Condition], rows: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """For each row, whether it fulfils all conditions; one without the value doesn't. Shape (rows,)."""
    chosen = np.ones(len(rows), np.bool_)
    for name, symbol, value in conditions:
        holds = _OPERATORS[symbol]
        chosen &= [actual is not None and holds(actual, value) for actual in _values(name, rows)]
    return chosen


def _values(name: str, rows: pa.RecordBatch) -> list[Any]:
    if name == _GAIN:
        values: list[Any] = pc.subtract(rows["reward_revised"], rows["reward_initial"]).to_pylist()
        return values
    values = rows["messages" if name == _PROMPT else name].to_pylist()
    if name in (_PROMPT, "messages"):
        return [None if turns is None else "\n".join(turn["content"] for turn in turns) for turns in values]
    return [str(value) if isinstance(value, list) else value for value in values]


def _typed(name: str, symbol: str, value: str, columns: pa.Schema) -> Condition:
    types = {field.name: field.type for field in columns} | {
        _GAIN: pa.float32(),
        _PROMPT: columns.field("messages").type,
    }
    if name not in types:
        raise UsageError(f"--where: no field {name!r}; there are {', '.join(sorted(types))}")
    if value[0] in "\"'" and value[-1] == value[0] and len(value) > 1:
        value = value[1:-1]
    if pa.types.is_nested(types[name]) and symbol != "~":
        raise UsageError(f"--where: {name} is a list: search it by ~, such as {name}~{value}")
    if pa.types.is_string(types[name]) or pa.types.is_nested(types[name]):
        return name, symbol, value
    if pa.types.is_boolean(types[name]):
        value = {"true": "1", "false": "0"}.get(value.lower(), value)
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if symbol == "~" or not math.isfinite(number):
        raise UsageError(
            f"--where: {name} is a number: compare it by = != < <= > >= with a number, not {symbol} {value!r}"
        )
    if pa.types.is_floating(types[name]):
        # 0.3 means the float32 that prints so.
        number = pa.scalar(number).cast(types[name], safe=False).as_py()
    return name, symbol, number


def _unreadable(text: str, position: int, expected: str) -> UsageError:
    rest = text[position : position + 40]
    return UsageError(f"--where: expected {expected}, found {rest!r} at character {position + 1}")
