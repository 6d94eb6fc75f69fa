"""croissant.json: the data set for catalogues, in MLCommons' Croissant 1.0 with its vocabulary for responsible AI (RAI 1.0).

Specification: https://docs.mlcommons.org/croissant/docs/croissant-spec.html. Facts of the manifest alone; no text of any row.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.dataset import facts
from pipeline.text import redact_paths

NAME = "croissant.json"
_PARQUET = "application/x-parquet"
_TYPES = {"string": "sc:Text", "bool": "sc:Boolean", "float": "sc:Float"}


def render(manifest: dict[str, Any]) -> str:
    """The JSON-LD of a data set."""
    manifest = redact_paths(manifest)
    words = {role: str(model["name"]) for role, model in manifest["models"].items()} | {
        "title": facts.title(manifest),
        "headline": facts.headline(manifest),
        "licence": manifest["source"].get("licence") or "unknown",
        "source": manifest["source"].get("name"),
        "publication": manifest.get("publication", 1),
        "reviewed": dict(facts.review(manifest.get("review"))).get("Reviewed", "none"),
    }
    content = _filled(json.loads(Path(__file__).with_suffix(".json").read_text("utf-8")), words)
    data = {
        "@type": "cr:FileSet",
        "@id": "data",
        "name": "data",
        "encodingFormat": _PARQUET,
        "includes": "data/*.parquet",
    }
    fields = [_field(field) for field in schema.PUBLISHED if field.name != "messages"]
    content["distribution"] = [*map(_file, manifest["files"]), data]
    content["recordSet"] = [{"@type": "cr:RecordSet", "@id": "pairs", "name": "pairs", "field": fields}]
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _filled(value: Any, words: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(part, words) for key, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, words) for part in value]
    return value.format(**words) if isinstance(value, str) else value


def _file(entry: dict[str, Any]) -> dict[str, Any]:
    path, size = entry["path"], f"{entry['bytes']} B"
    names = {"@type": "cr:FileObject", "@id": path, "name": path, "contentUrl": path, "contentSize": size}
    return names | {"encodingFormat": _PARQUET, "sha256": entry["sha256"]}


def _field(field: pa.Field) -> dict[str, Any]:
    listed = pa.types.is_list(field.type)
    kind = _TYPES.get(str(field.type.value_type if listed else field.type), "sc:Integer")
    names = {"@type": "cr:Field", "@id": f"pairs/{field.name}", "name": field.name, "dataType": kind}
    source = {"fileSet": {"@id": "data"}, "extract": {"column": field.name}}
    return names | {"source": source} | ({"repeated": True} if listed else {})
