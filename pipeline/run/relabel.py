"""Relabel: a published data set's texts with other token labels, as a data set of its own. No model is called.

File k of the new data set holds the rows of file k of the old one but those that the new tokenizer can't label. These go to
the new reject ledger, so in = published + rejected, where in is what the old data set published; its own rejects stay with
it. Streams batch by batch: memory holds some row groups and the rejects of one file.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from pipeline import __version__, schema
from pipeline.config.loading import load_config
from pipeline.config.settings import CurationConfig, FilterSettings, LabelSettings
from pipeline.dataset import manifest, reader
from pipeline.dataset.reader import PublishedFile
from pipeline.dataset.writer import write_ledgers, write_part
from pipeline.errors import ConfigError
from pipeline.labels.columns import ANY_DISTANCE, label_texts
from pipeline.labels.loading import describe, open_tokenizer, settings_of
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.run import publish as publication
from pipeline.schema import digest
from pipeline.storage import stage_files
from pipeline.storage.location import local_side
from pipeline.storage.lock import run_lock
from pipeline.storage.ours import check_empty

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


# The stages that may reject a row, in order.
_STAGES = {"relabel": ("label",), "review": ("review", "filter", "label")}
# From published rows: those of the new data set, and rejects by stage.
Apply = Callable[[pa.Table], tuple[pa.Table, dict[str, pa.Table]]]


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
    tokenizer = open_tokenizer(labels.tokenizer, labels)
    settings = {"labels": labels.data_settings()}
    settings |= {"filter": parent["settings"]["filter"] | distance.data_settings()} if distance else {}

    def apply(table: pa.Table) -> tuple[pa.Table, dict[str, pa.Table]]:
        output = label_texts(table, tokenizer, distance or ANY_DISTANCE)
        # A reject's distance is that of the new tokens.
        old = table.drop_columns(["edit_distance"])
        return output.rows, {"label": stage_files.reject_table("label", old, output.rejects)}

    changes = {"settings": parent["settings"] | settings}
    return derive(root, parent, out, "relabel", settings, apply, tokenizer, changes, advance=advance, warn=warn)


def derive(
    root: Path,
    parent: dict[str, Any],
    out: Path,
    command: Literal["relabel", "review"],
    inputs: object,
    apply: Apply,
    tokenizer: LabelTokenizer,
    changes: dict[str, Any],
    *,
    advance: Advance,
    warn: Warn,
) -> dict[str, Any]:
    """Write to `out` what `apply` makes of the data set of `root`, unless it is there; returns the manifest.

    inputs: what determines it besides parent and tokenizer; changes: to the parent's manifest. Raises as `relabel` does.
    """
    files, described = reader.check_files(root, parent, "hashes"), describe(tokenizer)
    run_digest = digest(command, manifest.digest_of(parent), described, inputs, schema.SCHEMA_VERSION, __version__)
    _check_out(root, out, command)
    with run_lock(out, warn):
        if current := publication.find_current(out, run_digest, warn):
            return current
        entries: list[dict[str, Any]] = []
        metadata = publication.file_metadata(described, run_digest)
        first, *others = _STAGES[command]
        rejects: dict[str, list[pa.Table]] = {stage: [] for stage in _STAGES[command]}
        writing = _write_files(out, files, apply, metadata, entries, rejects, first, advance)
        ledger, reasons = write_ledgers(out, {first: writing, **{stage: rejects[stage] for stage in others}})
        rows = publication.account(parent["rows"]["published"], entries, ledger)
        content = {
            **_inherited(parent, changes),
            "run_digest": run_digest,
            "rows": rows,
            "funnel": publication.funnel(rows["read"], reasons, {}),
            "labels": described,
            "files": entries,
            "rejected_files": ledger,
        }
        return publication.finish(out, content, tokenizer)


def _check_out(root: Path, out: Path, command: Literal["relabel", "review"]) -> None:
    current = publication.check_out(out, [root], command)
    # An interrupted run leaves its lock; a folder with neither lock nor manifest is somebody else's.
    ours = current is not None or (local_side(out / "work") / "run.lock").exists()
    if not ours:
        check_empty(out)


def _write_files(
    out: Path,
    files: Sequence[PublishedFile],
    apply: Apply,
    metadata: dict[str, str],
    entries: list[dict[str, Any]],
    rejects: dict[str, list[pa.Table]],
    first: str,
    advance: Advance,
) -> Iterator[pa.Table]:
    """Write the new data files and add their `entries` of the manifest; yields the `first` stage's rejects of each."""

    def applied(file: PublishedFile) -> Iterator[pa.Table]:
        for batch in reader.batches(file.path, rows=_BATCH):
            rows, lost = apply(pa.Table.from_batches([batch]))
            for stage, table in lost.items():
                rejects[stage] += [table] if table.num_rows else []
            yield rows
            advance(batch.num_rows)

    for number, file in enumerate(files):
        entries.append(write_part(out, number, len(files), applied(file), metadata))
        yield from rejects[first]
        rejects[first].clear()


def _inherited(parent: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """What the new manifest has of its parent's, with the parent in its lineage."""
    ancestor = {name: parent[name] for name in ("version", "run_digest", "rows", "labels")}
    ancestor |= {"review": changes["review"]} if "review" in changes else {}
    return {
        **{name: value for name, value in parent.items() if name not in _NOT_INHERITED},
        "calls": {},
        "cost_usd": 0.0,
        "lineage": [*parent.get("lineage", []), {"manifest": manifest.digest_of(parent), **ancestor}],
        **changes,
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
