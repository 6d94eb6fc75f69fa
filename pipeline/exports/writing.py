"""Write an export: one streamed file, a README with the loss's contract, and export.json, last, with the lineage.

Memory holds one batch of rows. The data set is checked against its manifest before anything is written; each file appears
whole or not at all. Where the format carries texts, every row is tokenised as its trainer does: an export whose sequences are
not the published ones is refused, and a single such pair is skipped.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import __version__
from pipeline.dataset import manifest, reader
from pipeline.dataset.open import PairDataset
from pipeline.errors import RowReject, UsageError
from pipeline.exports.checking import Checker, open_checker
from pipeline.exports.formats import Format, Variant
from pipeline.exports.trainers import Row
from pipeline.labels.loading import settings_of
from pipeline.labels.templates import with_system
from pipeline.schema import digest
from pipeline.storage.atomic import replacing, write_text
from pipeline.storage.ours import check_empty

NAME = "export.json"
SKIPPED = "skipped.jsonl"
_README = "README.md"
_BATCH_ROWS = 1024
_PROBED_ROWS = 32

_HERE = Path(__file__).parent


def export(
    dataset: PairDataset,
    format: Format,
    variant: str,
    out: Path,
    advance: Callable[[int], None],
    warn: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Write `out`; returns the content of its export.json. advance: called with the number of pairs of each batch.

    Raises UsageError for an `out` that is not empty or lies within the data set, for a format without room for thoughts, and
    for one whose trainer would not see the published sequences; ConfigError when the labels' tokenizer is needed and not
    available, StorageError when the disk refuses or a file is damaged.
    """
    check_free(out, dataset.root)
    labels, layout = dataset.manifest["labels"], format.variants[variant]
    _check_thoughts(format, variant, labels)
    checker = open_checker(labels, format, variant, warn)
    if checker:
        checker.probe([pair for pair, _ in zip(_pairs(dataset, layout), range(_PROBED_ROWS), strict=False)])
    with _whole_or_nothing(out, layout):
        return _write(out, dataset, format, variant, checker, advance)


@contextmanager
def _whole_or_nothing(out: Path, layout: Variant) -> Iterator[None]:
    """Leave nothing of an export that fails, so that the same command can be run again. `out` held nothing before."""
    try:
        yield
    except BaseException:
        for name in (layout.file, SKIPPED, *layout.companions, _README):
            (out / name).unlink(missing_ok=True)
        raise


def _write(
    out: Path,
    dataset: PairDataset,
    format: Format,
    variant: str,
    checker: Checker | None,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    labels, layout = dataset.manifest["labels"], format.variants[variant]
    entries, skipped = _write_files(out, dataset, layout, checker, advance)
    _write_readme(out, format, variant, labels, len(dataset) - len(skipped))
    lineage = manifest.lineage(dataset.manifest)
    content = {
        "format": "figa-export",
        "version": __version__,
        "export": format.name,
        "variant": variant,
        "pairs": {"read": len(dataset), "exported": len(dataset) - len(skipped), "skipped": len(skipped)},
        "skipped": dict(sorted(Counter(entry["reason"] for entry in skipped).items())),
        # Whether the trainer's sequences are the published ones; null where that wasn't compared.
        "equal_sequences": True if checker or not (layout.answers or layout.bare) else None,
        "labels": labels,
        "lineage": lineage | {"digest": digest(format.name, variant, lineage, __version__)},
        "files": entries,
    }
    write_text(out / NAME, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return content


def _write_files(
    out: Path, dataset: PairDataset, layout: Variant, checker: Checker | None, advance: Callable[[int], None]
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Write the data and its companions; returns the files' entries and the skipped pairs, each with its reason."""
    skipped: list[dict[str, str]] = []
    rows = _rows(dataset, layout, checker, skipped, advance)
    written = _write_rows(out / layout.file, rows, _columns(dataset, layout, checker))
    entries = [manifest.file_entry(out, out / layout.file, written)]
    if layout.answers:
        write_text(out / SKIPPED, "".join(json.dumps(entry) + "\n" for entry in skipped))
        entries.append(manifest.file_entry(out, out / SKIPPED, len(skipped)))
    for name, value in layout.companions.items():
        write_text(out / name, json.dumps(value, indent=2) + "\n")
    return entries, skipped


def _write_readme(out: Path, format: Format, variant: str, labels: dict[str, Any], pairs: int) -> None:
    names = {"file": format.variants[variant].file, "format": format.name, "variant": variant, "version": __version__}
    contract = (_HERE / f"{format.name}.md").read_text("utf-8").format(file=names["file"], **labels)
    readme = (_HERE / "readme.md").read_text("utf-8")
    write_text(out / _README, readme.format(contract=contract, pairs=pairs, **names))


def check_free(out: Path, root: Path) -> None:
    """Refuse a folder in the data set `root`, and one that holds anything. Raises UsageError."""
    if out.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"--out {out}: lies in the data set's own folder; name one outside it")
    check_empty(out)


def _check_thoughts(format: Format, variant: str, labels: dict[str, Any]) -> None:
    if labels.get("reasoning") == "context" and "messages" in format.variants[variant].reads:
        raise UsageError(
            f"--format {format.name}, variant {variant}: has no place for the thoughts that labels.reasoning=context puts "
            "before the answers; export sequences, or a data set relabelled with --set labels.reasoning=drop"
        )


def _pairs(dataset: PairDataset, layout: Variant, advance: Callable[[int], None] = lambda rows: None) -> Iterator[Row]:
    """The published pairs, their queries with the system prompt that the policy had before those without one."""
    system = None if layout.bare else settings_of(dataset.manifest["labels"]).system
    for file in dataset.files:
        for batch in reader.batches(file.path, ["id", *layout.reads], _BATCH_ROWS):
            for pair in batch.to_pylist():
                if "messages" in pair:
                    pair["messages"] = with_system(pair["messages"], system)
                yield pair
            advance(batch.num_rows)


def _rows(
    dataset: PairDataset,
    layout: Variant,
    checker: Checker | None,
    skipped: list[dict[str, str]],
    advance: Callable[[int], None],
) -> Iterator[Row]:
    """The rows to write. Appends pairs that are unfit to `skipped`."""
    for pair in _pairs(dataset, layout, advance):
        reason = layout.unfit(pair) if layout.unfit else None
        try:
            rows = [] if reason else checker.convert(pair) if checker else layout.convert(pair)
        except RowReject as reject:
            reason = reject.reason
        if reason:
            skipped.append({"id": pair["id"], "reason": reason})
        else:
            yield from rows


def _columns(dataset: PairDataset, layout: Variant, checker: Checker | None) -> pa.Schema:
    """The columns of a Parquet file, without the optional ones where a pair has no rewards."""
    rewards = [
        reader.read(file.path, ["reward_initial", "reward_revised"]) for file in dataset.files if layout.optional
    ]
    left_out = layout.optional if any(column.null_count for table in rewards for column in table.columns) else ()
    columns = {**layout.columns, **(checker.columns if checker else {})}
    return pa.schema([item for item in columns.items() if item[0] not in left_out], dataset.schema.metadata)


def _write_rows(path: Path, rows: Iterator[Row], columns: pa.Schema) -> int:
    """Write Parquet with the data set's metadata, JSON lines, or a JSON array with one line per row; returns how many rows."""
    written = 0
    with replacing(path) as temporary:
        if path.suffix == ".parquet":
            with pq.ParquetWriter(temporary, columns, compression="zstd", write_page_checksum=True) as writer:
                while batch := list(islice(rows, _BATCH_ROWS)):
                    writer.write_table(pa.Table.from_pylist(batch, columns))
                    written += len(batch)
            return written
        array = path.suffix == ".json"
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write("[" * array)
            for row in rows:
                start = (",\n" if written else "\n") * array
                file.write(start + json.dumps(row, ensure_ascii=False) + "\n" * (not array))
                written += 1
            file.write("\n]\n" * array)
    return written
