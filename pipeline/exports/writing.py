"""Write an export: one streamed file, a README with the loss's contract, and export.json, last, with the lineage.

Memory holds one batch of rows. The data set is checked against its manifest before anything is written; each file appears
whole or not at all.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import __version__, schema
from pipeline.dataset import manifest, reader
from pipeline.dataset.open import PairDataset
from pipeline.errors import ConfigError, UsageError
from pipeline.exports.formats import Format, Render
from pipeline.labels.loading import difference, open_tokenizer, settings_of
from pipeline.labels.templates import with_system
from pipeline.schema import digest
from pipeline.storage.atomic import replacing, write_text

NAME = "export.json"
SKIPPED = "skipped.jsonl"
_BATCH_ROWS = 1024

_HERE = Path(__file__).parent


def export(
    dataset: PairDataset, format: Format, variant: str, out: Path, advance: Callable[[int], None]
) -> dict[str, Any]:
    """Write `out`; returns the content of its export.json. advance: called with the number of pairs of each batch.

    Raises UsageError for an `out` that is not empty or lies within the data set and for a format without room for thoughts,
    ConfigError when the labels' tokenizer is needed and not available, StorageError when the disk refuses or a file is damaged.
    """
    _check_free(out, dataset.root)
    labels = dataset.manifest["labels"]
    _check_thoughts(format, labels)
    render = _renderer(labels) if variant in format.rendered else _unused_renderer
    skipped: list[dict[str, str]] = []
    tables = _converted(dataset, format, variant, render, skipped, advance)
    path = out / format.file
    rows = _write_json(path, tables) if path.suffix == ".json" else _write_parquet(path, tables, dataset)
    entries = [manifest.file_entry(out, path, rows)]
    if format.unfit:
        write_text(out / SKIPPED, "".join(json.dumps(entry) + "\n" for entry in skipped))
        entries.append(manifest.file_entry(out, out / SKIPPED, len(skipped)))
    for name, value in format.companions.items():
        write_text(out / name, json.dumps(value, indent=2) + "\n")
    pairs = len(dataset) - len(skipped)
    names = {"file": format.file, "format": format.name, "variant": variant, "pairs": pairs, "version": __version__}
    contract = (_HERE / f"{format.name}.md").read_text("utf-8").format(file=format.file, **labels)
    write_text(out / "README.md", (_HERE / "readme.md").read_text("utf-8").format(contract=contract, **names))
    lineage = manifest.lineage(dataset.manifest)
    content = {
        "format": "figa-export",
        "version": __version__,
        "export": format.name,
        "variant": variant,
        "pairs": {"read": len(dataset), "exported": pairs, "skipped": len(skipped)},
        "skipped": dict(sorted(Counter(entry["reason"] for entry in skipped).items())),
        "labels": labels,
        "lineage": lineage | {"digest": digest(format.name, variant, lineage, __version__)},
        "files": entries,
    }
    write_text(out / NAME, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return content


def _renderer(labels: dict[str, Any]) -> Render:
    """How the data set's queries were rendered. Raises ConfigError when its tokenizer is gone, or another one by now."""
    tokenizer = open_tokenizer(labels["tokenizer"], settings_of(labels))
    if differs := difference(labels, tokenizer):
        raise ConfigError(
            f"labels.tokenizer {labels['tokenizer']}: is not the one that the labels were made with: {differs}; restore "
            "it, or export another variant"
        )
    return tokenizer.render


def _unused_renderer(_: object) -> str:
    raise AssertionError("this variant is not among the format's `rendered` ones")


def _check_free(out: Path, root: Path) -> None:
    if out.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"--out {out}: lies in the data set's own folder; name one outside it")
    if out.exists() and (not out.is_dir() or any(out.glob("*"))):
        raise UsageError(f"--out {out}: exists and is not an empty folder; name a new one")


def _check_thoughts(format: Format, labels: dict[str, Any]) -> None:
    if labels.get("reasoning") == "context" and format.name != "sequences":
        raise UsageError(
            f"--format {format.name}: has no place for the thoughts that labels.reasoning=context puts before the answers; "
            "export sequences, or a data set relabelled with --set labels.reasoning=drop"
        )


def _converted(
    dataset: PairDataset,
    format: Format,
    variant: str,
    render: Render,
    skipped: list[dict[str, str]],
    advance: Callable[[int], None],
) -> Iterator[pa.Table]:
    """The rows to write, batch by batch; first an empty table, for its schema. Appends unfit pairs to `skipped`."""
    convert, columns = format.variants[variant], ["id", *format.columns]
    yield convert(pa.schema([dataset.schema.field(name) for name in columns]).empty_table(), render)
    system = None if format.bare else settings_of(dataset.manifest["labels"]).system
    for file in dataset.files:
        for batch in reader.batches(file.path, columns, _BATCH_ROWS):
            pairs = _with_system(pa.Table.from_batches([batch]), system)
            if format.unfit:
                reasons = [format.unfit(pair) for pair in pairs.to_pylist()]
                named = zip(pairs["id"].to_pylist(), reasons, strict=True)
                skipped += [{"id": name, "reason": reason} for name, reason in named if reason]
                pairs = pairs.filter(pa.array([reason is None for reason in reasons], pa.bool_()))
            yield convert(pairs, render)
            advance(batch.num_rows)


def _with_system(pairs: pa.Table, system: str | None) -> pa.Table:
    """The pairs with the system prompt that the policy had before queries without one."""
    if "messages" not in pairs.column_names:
        return pairs
    messages = [with_system(query, system) for query in pairs["messages"].to_pylist()]
    place = pairs.schema.get_field_index("messages")
    return pairs.set_column(place, pairs.schema.field(place), pa.array(messages, schema.MESSAGES))


def _write_json(path: Path, tables: Iterator[pa.Table]) -> int:
    """Write a JSON array with one line per row; returns the number of rows."""
    rows = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write("[")
        for table in tables:
            for row in table.to_pylist():
                file.write((",\n" if rows else "\n") + json.dumps(row, ensure_ascii=False))
                rows += 1
        file.write("\n]\n")
    return rows


def _write_parquet(path: Path, tables: Iterator[pa.Table], dataset: PairDataset) -> int:
    """Write a Parquet file with the data set's metadata; returns the number of rows."""
    metadata = dataset.schema.metadata
    columns = next(tables).schema.with_metadata(metadata)
    rows = 0
    options = {"compression": "zstd", "write_page_checksum": True}
    with replacing(path) as temporary, pq.ParquetWriter(temporary, columns, **options) as writer:
        for table in tables:
            writer.write_table(table.replace_schema_metadata(metadata))
            rows += table.num_rows
    return rows
