"""croissant.json: the data set for catalogues, in MLCommons' Croissant 1.0 with its vocabulary for responsible AI (RAI 1.0).

Specification: https://docs.mlcommons.org/croissant/docs/croissant-spec.html and …/croissant-rai-spec.html. Facts of the manifest alone;
no text of any row.
"""

import json
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.dataset import facts
from pipeline.text import redact_paths

NAME = "croissant.json"
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "citeAs": "cr:citeAs",
    "recordSet": "cr:recordSet",
    "field": "cr:field",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "source": "cr:source",
    "extract": "cr:extract",
    "column": "cr:column",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "includes": "cr:includes",
    "repeated": "cr:repeated",
    "subField": "cr:subField",
}
_CITATION = "Guo et al., Beyond Imitation: Leveraging Fine-grained Quality Signals for Alignment, ICLR 2024, arXiv:2311.04072"


def render(manifest: dict[str, Any]) -> str:
    """The JSON-LD of a data set."""
    manifest = redact_paths(manifest)
    published = [field for field in schema.PUBLISHED if field.name != "messages"]
    content = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": facts.title(manifest),
        "description": f"Pairs of an initial answer and its minimal revision, with a weight per token. {facts.headline(manifest)}.",
        "license": str(manifest["source"].get("licence") or "unknown"),
        "citeAs": _CITATION,
        "version": f"{manifest.get('publication', 1)}.0.0",
        "isLiveDataset": False,
        "distribution": [_file(entry) for entry in manifest["files"]],
        "recordSet": [
            {"@type": "cr:RecordSet", "@id": "pairs", "name": "pairs", "field": [*map(_field, published)]},
        ],
        **_responsible(manifest),
    }
    if manifest["files"]:
        content["distribution"].append(
            {
                "@type": "cr:FileSet",
                "@id": "data",
                "name": "data",
                "encodingFormat": "application/x-parquet",
                "includes": "data/*.parquet",
            }
        )
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _file(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": entry["path"],
        "name": entry["path"],
        "contentUrl": entry["path"],
        "contentSize": f"{entry['bytes']} B",
        "encodingFormat": "application/x-parquet",
        "sha256": entry["sha256"],
    }


def _field(field: pa.Field) -> dict[str, Any]:
    type_ = field.type.value_type if pa.types.is_list(field.type) else field.type
    kinds = {"string": "sc:Text", "bool": "sc:Boolean", "float": "sc:Float"}
    return {
        "@type": "cr:Field",
        "@id": f"pairs/{field.name}",
        "name": field.name,
        "dataType": kinds.get(str(type_), "sc:Integer"),
        "source": {"fileSet": {"@id": "data"}, "extract": {"column": field.name}},
        **({"repeated": True} if pa.types.is_list(field.type) else {}),
    }


def _responsible(manifest: dict[str, Any]) -> dict[str, Any]:
    models = {role: str(model["name"]) for role, model in manifest["models"].items()}
    review = manifest.get("review")
    reviewed = "Not reviewed by people in figa-pipeline."
    if review:
        counted = ", ".join(f"{review[name]} {name}" for name in ("keep", "drop", "edit", "undecided"))
        reviewed = f"Reviewed by {len(review['reviewers'])} reader(s) in figa-pipeline: {counted}."
    return {
        "rai:dataCollection": f"Queries and references of {manifest['source'].get('name')}; initial answers by {models['policy']}.",
        "rai:dataCollectionType": ["Others", "Secondary Data analysis"],
        "rai:dataManipulationProtocol": f"Revised minimally by {models['reviser']}, selected and gated by {models['reward']}.",
        "rai:dataAnnotationProtocol": f"Token weights by alignment of both answers (FIGA). {reviewed}",
        "rai:machineAnnotationTools": sorted({*models.values(), f"figa-pipeline {manifest['version']}"}),
        "rai:dataUseCases": ["Fine-tuning of language models on token-level quality signals"],
        "rai:dataLimitations": "Texts are unfiltered but for the stages of the funnel, and may be wrong. Weights are for the loss in README.md.",
        "rai:dataBiases": f"{models['reward']} decided which rows are here: its blind spots are the data's.",
        "rai:personalSensitiveInformation": "Not searched for, unless the source or a plug-in did.",
    }
