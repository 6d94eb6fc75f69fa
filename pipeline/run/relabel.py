"""Relabel: a published data set's texts with other token labels, as a data set of its own. No model is called.

File k of the new data set holds the rows of file k of the old one but those that the new tokenizer can't label. These go to
the new reject ledger, so in = published + rejected, where in is what the old data set published; its own rejects stay with
it. Streams batch by batch: memory holds some row groups and the rejects of one file.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import __version__, schema
from pipeline.config.loading import load_config
from pipeline.config.settings import CurationConfig, FilterSettings, LabelSettings
from pipeline.dataset import manifest, reader
from pipeline.dataset.reader import PublishedFile
from pipeline.dataset.writer import write_ledgers, write_part
from pipeline.errors import ConfigError, UsageError
from pipeline.labels.columns import ANY_DISTANCE, label_texts
from pipeline.labels.loading import describe, open_tokenizer, settings_of
from pipeline.run import publish as publication
from pipeline.schema import digest
from pipeline.storage import stage_files
from pipeline.storage.location import local_side
from pipeline.storage.lock import run_lock
from pipeline.storage.stage_files import StageOutput

_BATCH = 512
# What a manifest says of itself, or of money that was spent in its own folder.
_NOT_INHERITED = set(
    "digest documents publication version schema_version unanswered unpriced prices billed_above_limits cost_uncertain_usd "
    "cost_usd_by_call".split()
)
# Distance limits hold again only where they are named: the pairs passed them when the data set was created.
DISTANCE_SETTINGS = ("filter.min_distance", "filter.max_distance")
Advance = Callable[[int], None]
Warn = Callable[[str], None]


def relabel(
    root: Path,
    out: Path,
    labels: LabelSettings,
    distance: FilterSettings | None = None,
    *,
    advance: Advance,
    warn: Warn,
) -> dict[str, Any]:
    """Write the data set of `root`, labelled by `labels`, to `out`, unless it is there; returns its manifest.

    distance: limits of the edit distance to apply again. Raises UsageError, and StorageError for a damaged data set.
    """
    parent = reader.read_manifest(root)
    files = reader.check_files(root, parent, "hashes")
    tokenizer = open_tokenizer(labels.tokenizer, labels)
    described = describe(tokenizer)
    settings = {"labels": labels.data_settings()}
    settings |= {"filter": parent["settings"]["filter"] | distance.data_settings()} if distance else {}
    made_by = schema.SCHEMA_VERSION, __version__
    run_digest = digest("relabel", manifest.digest_of(parent), described, settings, *made_by)
    _check_out(root, out)
    with run_lock(out, warn):
        if current := publication.find_current(out, run_digest, warn):
            return current
        entries: list[dict[str, Any]] = []
        metadata = publication.file_metadata(described, run_digest)
        label = partial(label_texts, tokenizer=tokenizer, gate=distance or ANY_DISTANCE)
        ledger, reasons = write_ledgers(out, {"label": _write_files(out, files, label, metadata, entries, advance)})
        rows = publication.account(parent["rows"]["published"], entries, ledger)
        content = _inherited(parent) | {
            "run_digest": run_digest,
            "rows": rows,
            "funnel": [publication.funnel_step("label", rows["read"], reasons["label"], {})],
            "labels": described,
            "settings": parent["settings"] | settings,
            "files": entries,
            "rejected_files": ledger,
        }
        return publication.finish(out, content, tokenizer)


def _check_out(root: Path, out: Path) -> None:
    current = publication.check_out(out, [root], "relabel")
    # An interrupted run leaves its lock; a folder with neither lock nor manifest is somebody else's.
    ours = current is not None or (local_side(out / "work") / "run.lock").exists()
    if not ours and (out.is_file() or any(out.glob("*"))):
        raise UsageError(f"--out {out}: exists and is not an empty folder; name a new one")


def _write_files(
    out: Path,
    files: Sequence[PublishedFile],
    label: Callable[[pa.Table], StageOutput],
    metadata: dict[str, str],
    entries: list[dict[str, Any]],
    advance: Advance,
) -> Iterator[pa.Table]:
    """Write the new data files and add their `entries` of the manifest; yields the rejects of each when it is written."""
    rejects: list[pa.Table] = []

    def labelled(file: PublishedFile) -> Iterator[pa.Table]:
        for batch in reader.batches(file.path, rows=_BATCH):
            table = pa.Table.from_batches([batch])
            output = label(table)
            # A reject's distance is that of the new tokens.
            rejects.append(stage_files.reject_table("label", table.drop_columns(["edit_distance"]), output.rejects))
            yield output.rows
            advance(table.num_rows)

    for number, file in enumerate(files):
        entries.append(write_part(out, number, len(files), labelled(file), metadata))
        yield from rejects
        rejects.clear()


def _inherited(parent: dict[str, Any]) -> dict[str, Any]:
    """What the new manifest has of its parent's, with the parent in its lineage."""
    ancestor = {name: parent[name] for name in ("version", "run_digest", "rows", "labels")}
    return {
        **{name: value for name, value in parent.items() if name not in _NOT_INHERITED},
        "calls": {},
        "cost_usd": 0.0,
        "lineage": [*parent.get("lineage", []), {"manifest": manifest.digest_of(parent), **ancestor}],
    }


def relabel_settings(parent: dict[str, Any], assignments: Sequence[str], flags: dict[str, Any]) -> CurationConfig:
    """The parent's label settings, changed by `--set` and by flags. Raises ConfigError."""
    for text in assignments:
        key = text.partition("=")[0].strip()
        if not key.startswith("labels.") and key not in DISTANCE_SETTINGS:
            gate = f"the gate by {' and '.join(DISTANCE_SETTINGS)}"
            raise ConfigError(
                f"--set {key}: relabelling changes labels.* only, and {gate}; for the rest run figa build"
            )
    kept = settings_of(parent["labels"]).data_settings()
    if flags.get("labels.tokenizer"):
        # Options of a chat template are that template's own.
        kept["template_options"] = {}
    before = {name: value for name, value in kept.items() if name != "system"}
    config = load_config(None, [*assignments], flags, base={"labels": before})
    # The recorded system prompt is the one that was used: none stays none.
    labels = config.labels
    system = kept["system"] if labels.system is None else labels.system
    name = parent["labels"]["tokenizer"] if labels.tokenizer == "policy" else labels.tokenizer
    labels = labels.model_copy(update={"system": system or None, "tokenizer": name})
    return config.model_copy(update={"labels": labels})
