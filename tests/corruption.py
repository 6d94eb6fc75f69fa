"""Single seeded corruptions of a published data set, with the manifest's hashes left alone or made to fit again."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.dataset import manifest

SIDES = ("revised", "initial")
Corruption = Callable[[Path, random.Random, bool], str]


def _content(out: Path) -> dict[str, Any]:
    return json.loads((out / manifest.NAME).read_text("utf-8"))  # type: ignore[no-any-return]


def _shard(out: Path, chance: random.Random) -> Path:
    return chance.choice(sorted((out / "data").glob("*.parquet")))


def refit(out: Path) -> None:
    """Hashes, sizes, row counts and digest as if the files were the right ones."""
    content = _content(out)
    for key in ("files", "rejected_files"):
        for entry in content[key]:
            path = out / entry["path"]
            entry.update(manifest.file_entry(out, path, pq.ParquetFile(path).metadata.num_rows))
    manifest.write(out, content)


def _rewrite(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(
        pa.Table.from_pylist(rows, schema=table.schema), path, row_group_size=32, **schema.parquet_options(table.schema)
    )


def _other(text: str, chance: random.Random) -> str:
    """One character changed, added or taken out, inside the text."""
    place = chance.randrange(1, len(text) - 1)
    new = chance.choice([c for c in "bkqz7é" if c != text[place]])
    return text[:place] + chance.choice([new, text[place] + new]) + text[place + 1 :]


def _value(column: str, new: Callable[[Any, random.Random], Any]) -> Corruption:
    def corrupt(out: Path, chance: random.Random, fit: bool) -> str:
        path = _shard(out, chance)
        place = []

        def change(rows: list[dict[str, Any]]) -> None:
            place.append(chance.randrange(len(rows)))
            row = rows[place[0]]
            row[column] = new(row[column], chance)

        _rewrite(path, change)
        if fit:
            refit(out)
        return f"data/{path.name}, row {place[0]}"

    return corrupt


def _token(new: Callable[[Any], Any]) -> Callable[[list[Any], random.Random], list[Any]]:
    def change(values: list[Any], chance: random.Random) -> list[Any]:
        place = chance.randrange(len(values))
        return [*values[:place], new(values[place]), *values[place + 1 :]]

    return change


def _message(messages: list[dict[str, str]], chance: random.Random) -> list[dict[str, str]]:
    return [{**messages[0], "content": _other(messages[0]["content"], chance)}, *messages[1:]]


def _flipped_byte(out: Path, chance: random.Random, fit: bool) -> str:
    path = _shard(out, chance)
    raw = bytearray(path.read_bytes())
    raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    path.write_bytes(raw)
    return f"data/{path.name}"


def _deleted_row(out: Path, chance: random.Random, fit: bool) -> str:
    path = _shard(out, chance)
    _rewrite(path, lambda rows: rows.pop(chance.randrange(len(rows))))  # type: ignore[arg-type, return-value]
    if fit:
        refit(out)
    return "manifest.json" if fit else f"data/{path.name}"


def _repeated_row(out: Path, chance: random.Random, fit: bool) -> str:
    path = _shard(out, chance)

    def change(rows: list[dict[str, Any]]) -> None:
        one, other = chance.sample(range(len(rows)), 2)
        rows[one] = rows[other]

    _rewrite(path, change)
    if fit:
        refit(out)
    return "manifest.json" if fit else f"data/{path.name}"


def _swapped_shards(out: Path, chance: random.Random, fit: bool) -> str:
    one, other = chance.sample(sorted((out / "data").glob("*.parquet")), 2)
    aside = out / "aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
    if fit:
        refit(out)
    return f"data/{min(one, other).name}"


def _edited_manifest(out: Path, chance: random.Random, fit: bool) -> str:
    content = _content(out)
    section, key = chance.choice(
        [("labels", "alpha"), ("labels", "beta"), ("labels", "gate"), ("rows", "read"), ("rows", "published")]
    )
    content[section][key] += 1
    (out / manifest.NAME).write_text(json.dumps(content), "utf-8")
    if fit:
        refit(out)
    return "data/" if fit and section == "labels" else "manifest.json"


def foreign_shard(stranger: Path) -> Corruption:
    """A shard of another data set: in the place of one, or beside them."""

    def corrupt(out: Path, chance: random.Random, fit: bool) -> str:
        theirs, path = _shard(stranger, chance), _shard(out, chance)
        if not fit and chance.random() < 0.5:
            path = path.with_name("train-00099-of-00100.parquet")
        shutil.copy(theirs, path)
        if fit:
            refit(out)
        return f"data/{path.name}"

    return corrupt


# name: what it does, and whether it is also tried with hashes that fit
CORRUPTIONS: dict[str, tuple[Corruption, bool]] = {
    "weight": (_value("revised_weights", _token(lambda w: w + 0.5)), True),
    "initial weight": (_value("initial_weights", _token(lambda w: -0.5 - w)), True),
    "id": (_value("revised_input_ids", _token(lambda i: i ^ 1)), True),
    "initial id": (_value("initial_input_ids", _token(lambda i: i ^ 2)), True),
    "prompt id": (_value("prompt_input_ids", _token(lambda i: i + 1)), True),
    "label": (_value("revised_labels", _token(lambda i: i ^ 1)), True),
    "initial label": (_value("initial_labels", _token(lambda i: -100 if i != -100 else 0)), True),
    "op": (_value("revised_ops", _token(lambda op: (op + 2) % 3)), True),
    "initial op": (_value("initial_ops", _token(lambda op: op + 1)), True),
    "lost token": (_value("revised_weights", lambda values, _: values[:-1]), True),
    "distance": (_value("edit_distance", lambda d, _: d / 2), True),
    "mark": (_value("overlong", lambda mark, _: not mark), True),
    "text": (_value("initial", _other), True),
    "revised text": (_value("revised", _other), True),
    "message": (_value("messages", _message), True),
    "row id": (_value("id", lambda name, _: f"{int(name, 16) ^ 1:016x}"), True),
    "reference": (_value("reference", _other), False),
    "flipped byte": (_flipped_byte, False),
    "deleted row": (_deleted_row, True),
    "repeated row": (_repeated_row, True),
    "swapped shards": (_swapped_shards, True),
    "edited manifest": (_edited_manifest, True),
}
