"""Manifest and files: digests, sizes, schemas, and that in = published + rejected. Sees no row but the rejects' reasons."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.dataset import manifest
from pipeline.dataset.problem import Problem
from pipeline.dataset.reader import open_file
from pipeline.text import one_line, redact_paths

MANIFEST = manifest.NAME


@dataclass(frozen=True, slots=True)
class Entry:
    """What the manifest says of one file. name: relative to the folder."""

    path: Path
    name: str
    rows: int
    bytes: int
    sha256: str


def entries_of(root: Path, content: dict[str, Any], key: str) -> list[Entry]:
    """The files that the manifest names under `key`. Raises ValueError, KeyError or TypeError when it isn't a list of files."""
    entries = []
    for said in content[key]:
        path = root / said["path"]
        if not path.resolve().is_relative_to(root.resolve()):
            raise ValueError(f"{said['path']!r} is outside the folder")
        entries.append(Entry(path, said["path"], int(said["rows"]), int(said["bytes"]), str(said["sha256"])))
    return entries


def check_manifest(content: dict[str, Any], published: list[Entry], rejected: list[Entry]) -> Iterator[Problem]:
    """Its digest, and that its numbers add up."""
    if "digest" not in content:
        yield Problem(MANIFEST, "has no digest of itself: it was edited, or made before there was one")
    elif content["digest"] != manifest.digest_of(content):
        yield Problem(MANIFEST, "was edited: its digest is not that of its content")
    rows = content["rows"]
    for name, entries in (("published", published), ("rejected", rejected)):
        total = sum(entry.rows for entry in entries)
        if rows[name] != total:
            yield Problem(MANIFEST, f"says {rows[name]} rows {name}, its files have {total}")
    if rows["read"] != rows["published"] + rows["rejected"]:
        yield Problem(MANIFEST, f"{rows['read']} rows read are not {rows['published']} + {rows['rejected']}")
    left = rows["read"]
    for step in content["funnel"]:
        gone = sum(step["rejected"].values())
        if step["in"] != left or step["out"] != left - gone:
            yield Problem(
                MANIFEST, f"funnel, {step['stage']}: {left} came in, {gone} were rejected, {step['out']} go on"
            )
        left = step["out"]
    if left != rows["published"]:
        yield Problem(MANIFEST, f"the funnel ends with {left} rows, {rows['published']} are published")


def check_strangers(root: Path, named: list[Entry]) -> Iterator[Problem]:
    """Parquet files beside the named ones: a reader that takes the whole folder would take them too."""
    known = {entry.path.resolve() for entry in named}
    for folder in ("data", "rejected"):
        for path in sorted((root / folder).rglob("*.parquet")):
            if path.resolve() not in known:
                yield Problem(str(path.relative_to(root)), "is not in the manifest")


def check_bytes(entry: Entry) -> Iterator[Problem]:
    """Size and sha256."""
    try:
        found = manifest.file_entry(entry.path.parent, entry.path, entry.rows)
    except OSError as error:
        yield Problem(entry.name, f"can't be read: {error.strerror or error}")
        return
    if found["bytes"] != entry.bytes:
        yield Problem(entry.name, f"has {found['bytes']} bytes, the manifest says {entry.bytes}")
    elif found["sha256"] != entry.sha256:
        yield Problem(entry.name, "its sha256 is not the manifest's: some of its bytes were changed")


def check_footer(file: pq.ParquetFile, entry: Entry, expected: pa.Schema, version: str) -> Iterator[Problem]:
    """Rows, columns and types. A newer minor version has columns that this program doesn't know."""
    if file.metadata.num_rows != entry.rows:
        yield Problem(entry.name, f"has {file.metadata.num_rows} rows, the manifest says {entry.rows}")
    found = file.schema_arrow
    if newer(version):
        found = pa.schema([field for field in found if field.name in expected.names])
    if not found.equals(expected):
        wrong = [f.name for f in expected if f.name not in found.names or found.field(f.name).type != f.type]
        detail = f"column {wrong[0]} is missing or of another type" if wrong else "other columns, or in another order"
        yield Problem(entry.name, f"is not of schema {version}: {detail}", column=(wrong or [None])[0])


def newer(version: str) -> bool:
    """Whether a schema version of this major has columns that this program doesn't know."""
    return int(version.split(".")[1]) > int(schema.SCHEMA_VERSION.split(".")[1])


def check_metadata(file: pq.ParquetFile, entry: Entry, content: dict[str, Any]) -> Iterator[Problem]:
    """That the file belongs to this data set, in this place, and was labelled as the manifest says."""
    said = {key.decode(): value.decode("utf-8", "replace") for key, value in (file.schema_arrow.metadata or {}).items()}
    if said.get("figa.labels") == json.dumps(content["labels"], sort_keys=True):
        # Earlier versions wrote a tokenizer's whole path there as well.
        said["figa.labels"] = json.dumps(redact_paths(content["labels"]), sort_keys=True)
    expected = {
        "figa.schema_version": content["schema_version"],
        "figa.run": content["run_digest"],
        # A republished file has a digit group of its content behind that.
        "figa.part": "-".join(entry.path.stem.split("-")[:4]),
        "figa.labels": json.dumps(redact_paths(content["labels"]), sort_keys=True),
    }
    for key, value in expected.items():
        if said.get(key) != value:
            yield Problem(entry.name, f"its metadata {key} is not the manifest's: it is of another data set or place")


def check_ledger(content: dict[str, Any], rejected: list[Entry]) -> Iterator[Problem]:
    """The rejects' files, and that their stages and reasons are those of the funnel."""
    reasons: Counter[tuple[str, str]] = Counter()
    for entry in rejected:
        if not entry.path.exists():
            yield Problem(entry.name, "is missing")
            continue
        yield from check_bytes(entry)
        try:
            with open_file(entry.path) as file:
                yield from check_footer(file, entry, schema.REJECTED, content["schema_version"])
                for batch in file.iter_batches(columns=["stage", "reason"]):
                    reasons.update(zip(*(column.to_pylist() for column in batch.columns), strict=True))
        except (OSError, ValueError, pa.ArrowException) as error:
            yield Problem(entry.name, f"can't be read as Parquet: {one_line(error, 160)}")
    said = {(s["stage"], reason): count for s in content["funnel"] for reason, count in s["rejected"].items()}
    for stage, reason in sorted(said.keys() | reasons.keys()):
        found = reasons[stage, reason]
        if found != said.get((stage, reason), 0):
            told = said.get((stage, reason), 0)
            yield Problem(MANIFEST, f"funnel, {stage}: {told} rejected for {reason}, the ledger has {found}")


def check_file(entry: Entry, content: dict[str, Any], expected: pa.Schema) -> Iterator[Problem]:
    """All of one published file but its rows."""
    if not entry.path.exists():
        yield Problem(entry.name, "is missing")
        return
    yield from check_bytes(entry)
    try:
        with open_file(entry.path) as file:
            yield from check_footer(file, entry, expected, content["schema_version"])
            yield from check_metadata(file, entry, content)
    except (OSError, ValueError, pa.ArrowException) as error:
        yield Problem(entry.name, f"can't be read as Parquet: {one_line(error, 160)}")
