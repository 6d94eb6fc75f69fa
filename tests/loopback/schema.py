"""An answer of the shape that a JSON schema asks for, from plain text and a few known fields.

Not a validator: it reads the parts of JSON schema that structured answers use in practice (objects, arrays, enums,
`$ref`, `anyOf`, bounds) and ignores the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.loopback.chat import number_from


def as_json(schema: Mapping[str, Any], text: str, known: Mapping[str, Any] | None = None) -> str:
    """`text` goes into every string field, `known` into the fields of those names, at any depth.

    >>> as_json({"properties": {"reason": {"enum": ["a", "b"]}, "note": {"type": "string"}}}, "hi", {"reason": "b"})
    '{"reason": "b", "note": "hi"}'
    """
    return json.dumps(_fill(schema, schema, text, known or {}, 0), ensure_ascii=False)


def property_names(schema: Mapping[str, Any] | None) -> set[str]:
    """The names of the top-level fields that the schema asks for."""
    return set((schema or {}).get("properties", {}))


def _fill(part: Mapping[str, Any], root: Mapping[str, Any], text: str, known: Mapping[str, Any], depth: int) -> Any:
    if depth > 20:
        return None
    if "$ref" in part:
        return _fill(_resolve(part["$ref"], root), root, text, known, depth + 1)
    if "const" in part:
        return part["const"]
    if part.get("enum"):
        return part["enum"][number_from(text) % len(part["enum"])]
    for union in ("anyOf", "oneOf", "allOf"):
        if part.get(union):
            return _fill(part[union][0], root, text, known, depth + 1)
    match _type_of(part):
        case "object":
            fields = part.get("properties", {})
            return {
                name: known[name] if name in known else _fill(child, root, text, known, depth + 1)
                for name, child in fields.items()
            }
        case "array":
            item = part.get("items")
            return [_fill(item, root, text, known, depth + 1)] * max(1, part.get("minItems", 1)) if item else []
        case "integer" | "number" as kind:
            return _number(part, kind, text)
        case "boolean":
            return number_from(text) % 2 == 0
        case "null":
            return None
    return text


def _type_of(part: Mapping[str, Any]) -> str:
    kind = part.get("type") or ("object" if "properties" in part else "string")
    if isinstance(kind, list):
        kind = next((name for name in kind if name != "null"), "null")
    return str(kind)


def _number(part: Mapping[str, Any], kind: str, text: str) -> float:
    low = part.get("minimum", part.get("exclusiveMinimum", 0))
    high = part.get("maximum", part.get("exclusiveMaximum", low + 10))
    # Strictly between the bounds, so that exclusive ones hold as well; an integer range has no such middle to spare.
    if kind == "integer":
        return int(low) + number_from(text) % (int(high) - int(low) + 1)
    return round(low + (high - low) * (1 + number_from(text) % 98) / 100, 4)


def _resolve(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    part: Any = root
    for name in reference.removeprefix("#/").split("/"):
        part = part[name]
    return part
