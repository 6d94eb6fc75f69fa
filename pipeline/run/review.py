"""Review: a data set without the pairs that people dropped, and with their edits. No model is called.

Dropped pairs become rejects of the stage `review`, reason `reviewed_out`. Edited revisions pass the filter's tests of text and
distance again (reward and judge are not asked: `reward_revised` is null), and are labelled again; the other pairs stay as they
are. `reviewed_by` names who kept or edited a pair; the manifest has the digest of the decisions.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.config.loading import load_config
from pipeline.config.settings import FilterSettings
from pipeline.dataset import reader
from pipeline.errors import UsageError
from pipeline.labels.columns import label_texts
from pipeline.labels.loading import open_tokenizer, settings_of
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.run.decisions import LABELS, Decision, Decisions, label_studio_task
from pipeline.run.relabel import Advance, Warn, derive
from pipeline.stages.filter import check_rows
from pipeline.storage.atomic import write_text
from pipeline.storage.stage_files import Reject, collect, reject_table

Rejects = dict[str, pa.Table]


def review(root: Path, out: Path, decisions: Decisions, *, advance: Advance, warn: Warn) -> dict[str, Any]:
    """Write the reviewed data set of `root` to `out`, unless it is there; returns its manifest.

    Raises UsageError for decisions on another data set, and StorageError for a damaged one.
    """
    parent = reader.read_manifest(root)
    check_fits(root, parent, decisions)
    labels = settings_of(parent["labels"])
    tokenizer = open_tokenizer(str(parent["labels"]["tokenizer"]), labels)
    gate = load_config(base={"filter": parent["settings"].get("filter", {})}).filter
    counts = decisions.counts()
    counts["undecided"] = parent["rows"]["published"] - sum(counts.values())
    facts = {"decisions": decisions.digest, "reviewers": decisions.reviewers(), **counts}

    def apply(table: pa.Table) -> tuple[pa.Table, Rejects]:
        return _reviewed(schema.complete(table), decisions.by_id, tokenizer, gate)

    changes = {"review": facts}
    return derive(root, parent, out, "review", facts, apply, tokenizer, changes, advance=advance, warn=warn)


def check_fits(root: Path, parent: dict[str, Any], decisions: Decisions) -> None:
    """Raises UsageError unless the decisions are on pairs of this data set."""
    if decisions.run_digest != parent["run_digest"]:
        hint = "its texts may be others: review the report in this folder, or name the folder that was reviewed"
        raise UsageError(f"the decisions are on another data set than {root}; {hint}")
    known = {row_id for file in reader.check_files(root, parent, "sizes") for row_id in _ids(file.path)}
    if unknown := decisions.by_id.keys() - known:
        raise UsageError(f"{len(unknown)} of the decisions are on no pair of {root}, on {sorted(unknown)[0]!r} for one")


def _ids(path: Path) -> list[str]:
    return [row_id for batch in reader.batches(path, ["id"]) for row_id in batch["id"].to_pylist()]


def _reviewed(
    table: pa.Table, by_id: dict[str, Decision], tokenizer: LabelTokenizer, gate: FilterSettings
) -> tuple[pa.Table, Rejects]:
    """The rows that stay, in order, and the rejects of each stage."""
    decided = [by_id.get(row_id) for row_id in table["id"].to_pylist()]
    dropped = [n for n, decision in enumerate(decided) if decision and decision.kind == "drop"]
    edited = [n for n, decision in enumerate(decided) if decision and decision.kind == "edit"]
    names = pa.array([decision.reviewer if decision else None for decision in decided], pa.string())
    table = table.set_column(table.schema.get_field_index("reviewed_by"), "reviewed_by", names)
    lost = [Reject(n, "reviewed_out", {"reviewed_by": names[n].as_py()}) for n in dropped]
    rejects = {"review": reject_table("review", table, lost)}
    gone = {*dropped, *edited}
    plain = table.filter(pa.array([n not in gone for n in range(table.num_rows)]))
    if not edited:
        return plain, rejects
    texts = pa.array([decided[n].revised for n in edited], pa.string())  # type: ignore[union-attr]
    rows, more = _edit(_with(table.take(pa.array(edited)), texts), tokenizer, gate)
    both = pa.concat_tables([plain.cast(schema.PUBLISHED), rows])
    places = pc.index_in(both["id"], table["id"].combine_chunks())
    return both.take(pc.sort_indices(places)), rejects | more


def _with(rows: pa.Table, revised: pa.Array) -> pa.Table:
    """The rows with other revised answers, whose rewards nobody knows."""
    columns = {"revised": revised, "reward_revised": pa.nulls(rows.num_rows, pa.float32())}
    for name, values in columns.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, values)
    return rows


def _edit(rows: pa.Table, tokenizer: LabelTokenizer, gate: FilterSettings) -> tuple[pa.Table, Rejects]:
    """Edited rows after filter and label, and the rejects."""
    filtered = collect(rows, pa.schema([]), check_rows(rows.to_pylist(), gate, tokenizer, None))
    output = label_texts(filtered.rows, tokenizer)
    rejects = {"filter": (rows, filtered.rejects), "label": (filtered.rows, output.rejects)}
    # A reject's distance is that of the edited answer.
    tables = {s: reject_table(s, table.drop_columns(["edit_distance"]), lost) for s, (table, lost) in rejects.items()}
    return output.rows, tables


def export_tasks(root: Path, out: Path) -> int:
    """Write tasks.json and labels.xml for Label Studio into a folder; returns how many tasks there are."""
    content = reader.read_manifest(root)
    columns = ["id", "messages", "reference", "initial", "revised"]
    files = reader.check_files(root, content, "sizes")
    rows = (row for file in files for batch in reader.batches(file.path, columns) for row in batch.to_pylist())
    tasks = [label_studio_task(row, content["run_digest"]) for row in rows]
    write_text(out / "tasks.json", json.dumps(tasks, ensure_ascii=False, indent=1) + "\n")
    write_text(out / "labels.xml", LABELS)
    return len(tasks)
