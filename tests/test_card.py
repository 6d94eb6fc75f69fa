"""The data card: a header that loads, facts, and nothing that breaks out of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import datasets
import pytest
import yaml

from pipeline import open_dataset, schema
from pipeline.dataset import card
from tests import pairs


@pytest.fixture
def out(tiny_tokenizer: Path, tmp_path: Path) -> Path:
    return pairs.data_set(tmp_path / "out", tiny_tokenizer, 20)


def header(text: str) -> dict[str, object]:
    opening, yaml_text, _ = text.split("---\n", 2)
    assert opening == ""
    loaded: dict[str, object] = yaml.safe_load(yaml_text)
    return loaded


def test_the_folder_loads_as_it_is(out: Path, tmp_path: Path) -> None:
    own = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert list(own) == ["train"] and own["train"].num_rows == 20
    rejected = datasets.load_dataset(str(out), "rejected", cache_dir=str(tmp_path / "cache"))
    assert rejected["train"]["reason"] == ["truncated"]


def test_names_columns_funnel_models_and_licence(out: Path) -> None:
    manifest = open_dataset(out).manifest
    text = (out / "README.md").read_text("utf-8")
    types = [(field.name, re.sub("element: |item: ", "", str(field.type))) for field in schema.PUBLISHED]
    assert all(f"| `{name}` | `{type_}` |" in text for name, type_ in types)
    assert "| sample | 21 | 20 | 1 truncated |" in text
    assert manifest["labels"]["fingerprint"] in text and "arXiv:2311.04072" in text
    assert header(text)["license"] == "other" and header(text)["license_name"] == "synthetic"
    manifest["source"]["licence"] = "MIT"
    assert header(card.render(manifest))["license"] == "mit"


def test_the_header_says_language_size_and_that_it_is_synthetic(out: Path) -> None:
    manifest = open_dataset(out).manifest
    assert "language" not in header((out / "README.md").read_text("utf-8"))
    manifest["source"] |= {"name": "hh-rlhf", "resolved": "hub", "location": "Anthropic/hh-rlhf"}
    written = header(card.render(manifest))
    assert written["language"] == ["en"] and written["source_datasets"] == ["Anthropic/hh-rlhf"]
    assert written["size_categories"] == ["n<1K"] and "synthetic" in str(written["tags"])
    manifest["settings"]["source"]["languages"] = ["de"]
    manifest["rows"]["published"] = 10_000
    assert (header(card.render(manifest))["language"], header(card.render(manifest))["size_categories"]) == (
        ["de"],
        ["10K<n<100K"],
    )


def test_croissant_names_files_columns_and_who_made_it(out: Path) -> None:
    content = json.loads((out / "croissant.json").read_text("utf-8"))
    manifest = open_dataset(out).manifest
    assert [entry["sha256"] for entry in content["distribution"][:-1]] == [f["sha256"] for f in manifest["files"]]
    (records,) = content["recordSet"]
    assert {field["name"] for field in records["field"]} == {*schema.PUBLISHED.names} - {"messages"}
    assert "Review by people: none." in content["rai:dataAnnotationProtocol"]
    mlcroissant = pytest.importorskip("mlcroissant", reason="needs mlcroissant")
    assert not mlcroissant.Dataset(jsonld=str(out / "croissant.json")).metadata.ctx.issues.errors


@pytest.mark.parametrize(
    "hostile",
    [
        "x\n---\nlicense: evil\n# heading",
        "<script>alert(1)</script>",
        "a | b | c",
        "`code` [link](javascript:alert(1)) ![i](x)",
        "\u202ebidi\x1b[31m",
        '"quoted": {yaml: [1',
    ],
)
def test_hostile_names_stay_text(out: Path, hostile: str) -> None:
    manifest = open_dataset(out).manifest
    plain = card.render(manifest)
    manifest["source"] |= {"name": hostile, "licence": hostile, "revision": hostile, "split": hostile}
    manifest["models"]["policy"]["name"] = hostile
    manifest["funnel"][1]["rejected"] = {hostile: 1}
    text = card.render(manifest)
    assert header(text)["license"] == "other" and "evil" not in header(text)
    assert "\n" not in str(header(text)["license_name"])
    body = text.split("---\n", 2)[2]
    assert body.count("\n") == plain.split("---\n", 2)[2].count("\n")
    assert "<script" not in body and "\x1b" not in body and "\u202e" not in body and "](javascript" not in body
    # Every row of a table keeps its number of cells.
    was = plain.split("---\n", 2)[2].splitlines()
    assert [line.count("|") for line in body.splitlines()] == [line.count("|") for line in was]


@pytest.mark.parametrize(
    ("licence", "written"), [("unknown", "unknown"), (None, "unknown"), ("MIT, CC-BY-NC-4.0", ["mit", "cc-by-nc-4.0"])]
)
def test_licences_as_the_hub_knows_them(out: Path, licence: str | None, written: object) -> None:
    manifest = open_dataset(out).manifest
    manifest["source"]["licence"] = licence
    assert header(card.render(manifest))["license"] == written


def test_an_empty_set_loads_as_its_card_says(tiny_tokenizer: Path, tmp_path: Path) -> None:
    out = pairs.data_set(tmp_path / "empty", tiny_tokenizer, 0)
    assert 'load_dataset("PATH_OR_HUB_ID", streaming=True)' in (out / "README.md").read_text("utf-8")
    own = datasets.load_dataset(str(out), streaming=True, cache_dir=str(tmp_path / "cache"))
    assert list(own) == ["train"] and list(own["train"]) == []
