"""Review: a data set without the pairs that people dropped, and with their edits. No model is called.

Dropped pairs become rejects of the stage `review`, reason `reviewed_out`. Edited revisions pass the filter's tests of text and
distance again (reward and judge are not asked: `reward_revised` is null), and are labelled again; the other pairs stay as they
are. `reviewed_by` names who kept or edited a pair; the manifest has the digest of the decisions.

Decisions are the file that the report saves, or Label Studio's JSON export, a list of tasks with their annotations, of which
the last of a task counts:

    {"format": "figa-review", "run_digest": "…", "reviewer": "ann", "decisions": [
      {"id": "1ad1b9395c257bc4", "decision": "keep"}, {"id": "…", "decision": "edit", "revised": "…"}]}
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.config.loading import load_config
from pipeline.config.settings import FilterSettings
from pipeline.dataset import reader
from pipeline.errors import InputError, UsageError
from pipeline.labels.columns import label_texts
from pipeline.labels.loading import open_tokenizer, settings_of
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.run.relabel import Advance, Warn, derive
from pipeline.stages.filter import check_rows
from pipeline.storage.atomic import write_text
from pipeline.storage.stage_files import Reject, collect, reject_table
from pipeline.text import one_line, replace_surrogates, visible

Rejects = dict[str, pa.Table]
KINDS = ("keep", "drop", "edit")
# The labelling interface of the tasks: https://labelstud.io/tags/
LABELS = """\
<View>
  <Header value="Prompt"/><Text name="prompt" value="$prompt"/>
  <Header value="Initial answer"/><Text name="initial" value="$initial"/>
  <Header value="Revised answer"/><Text name="revised" value="$revised"/>
  <Choices name="decision" toName="revised" choice="single" required="true">
    <Choice value="keep"/><Choice value="drop"/><Choice value="edit"/>
  </Choices>
  <TextArea name="edited" toName="revised" value="$revised" editable="true" maxSubmissions="1"/>
</View>
"""


class Decision(NamedTuple):
    """kind: one of KINDS. revised: the text of an edit, else None."""

    kind: str
    revised: str | None
    reviewer: str


@dataclass(frozen=True, slots=True)
class Decisions:
    """digest: sha256 of the file. run_digest: of the data set that was read."""

    by_id: dict[str, Decision]
    run_digest: str
    digest: str

    def counts(self) -> dict[str, int]:
        found = Counter(decision.kind for decision in self.by_id.values())
        return {kind: found[kind] for kind in KINDS}

    def reviewers(self) -> list[str]:
        return sorted({decision.reviewer for decision in self.by_id.values()})


def load(file: Path) -> Decisions:
    """Read decisions of either format. Raises InputError naming the file, the entry and what was expected."""
    try:
        data = file.read_bytes()
        content = json.loads(data)
        entries = list(_tasks(content) if isinstance(content, list) else _saved(content))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        expected = "the file that the report saves, or Label Studio's JSON export, is expected"
        raise InputError(f"{file}: {expected} ({one_line(repr(error), 160)})") from None
    by_id: dict[str, Decision] = {}
    for number, (row_id, _, decision) in enumerate(entries, 1):
        where = f"{file}, decision {number} ({visible(row_id)})"
        if decision.kind not in KINDS or (decision.kind == "edit" and not _is_text(decision.revised)):
            raise InputError(f"{where}: expected keep, drop, or edit with a text in `revised`")
        if by_id.setdefault(row_id, decision) != decision:
            raise InputError(f"{where}: expected one decision a pair, found {by_id[row_id].kind} and {decision.kind}")
    runs = {run for _, run, _ in entries}
    if len(runs) != 1:
        raise InputError(f"{file}: expected decisions on the pairs of one data set, found {len(runs)}")
    return Decisions(by_id, runs.pop(), hashlib.sha256(data).hexdigest())


def _is_text(value: object) -> bool:
    """Whether it is a text that UTF-8 has, and not blank."""
    return isinstance(value, str) and bool(value.strip()) and replace_surrogates(value)[1] == 0


def _saved(content: dict[str, Any]) -> Iterator[tuple[str, str, Decision]]:
    if content["format"] != "figa-review":
        raise ValueError(f"its format is {content['format']!r}")
    reviewer = content["reviewer"]
    if reviewer != "" and not _is_text(reviewer):
        raise ValueError(f"its reviewer is {reviewer!r}")
    for entry in content["decisions"]:
        decision = Decision(str(entry["decision"]), entry.get("revised"), reviewer)
        yield str(entry["id"]), str(content["run_digest"]), decision


def _tasks(content: list[Any]) -> Iterator[tuple[str, str, Decision]]:
    for task in content:
        done = [one for one in task["annotations"] if not one.get("was_cancelled")]
        if not done:
            continue
        by = done[-1].get("completed_by")
        reviewer = by.get("email") or by.get("id") if isinstance(by, dict) else by
        values = {part["from_name"]: part["value"] for part in done[-1]["result"]}
        kind = values["decision"]["choices"][0]
        text = "".join(values["edited"]["text"]) if kind == "edit" and "edited" in values else None
        yield str(task["data"]["id"]), str(task["data"]["run_digest"]), Decision(kind, text, f"label-studio {reviewer}")


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
    files = reader.check_files(root, parent, "sizes")
    batches = (batch for file in files for batch in reader.batches(file.path, ["id"]))
    known = {row_id for batch in batches for row_id in batch["id"].to_pylist()}
    if unknown := decisions.by_id.keys() - known:
        raise UsageError(f"{len(unknown)} of the decisions are on no pair of {root}, on {sorted(unknown)[0]!r} for one")


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
    tasks = [_task(row, content["run_digest"]) for row in rows]
    write_text(out / "tasks.json", json.dumps(tasks, ensure_ascii=False, indent=1) + "\n")
    write_text(out / "labels.xml", LABELS)
    return len(tasks)


def _task(row: dict[str, Any], run_digest: str) -> dict[str, Any]:
    """A published pair as a task of Label Studio."""
    prompt = "\n\n".join(f"{message['role']}: {message['content']}" for message in row["messages"])
    texts = {name: row[name] for name in ("id", "initial", "revised", "reference")}
    return {"data": {**texts, "prompt": prompt, "run_digest": run_digest}}


def agreement(one: Decisions, other: Decisions) -> dict[str, Any]:
    """Of the pairs that both decided on: the share decided alike, Cohen's κ (None when chance explains all), and the others.

    Raises UsageError when there is no such pair.
    """
    both = sorted(one.by_id.keys() & other.by_id.keys())
    if not both or one.run_digest != other.run_digest:
        raise UsageError("the two files have no pair of the same data set in common")
    kinds = [(one.by_id[row_id].kind, other.by_id[row_id].kind) for row_id in both]
    alike = sum(a == b for a, b in kinds) / len(both)
    counted = [Counter(pair[side] for pair in kinds) for side in (0, 1)]
    chance = sum(counted[0][kind] * counted[1][kind] for kind in KINDS) / len(both) ** 2
    return {
        "pairs": len(both),
        "agreement": round(alike, 4),
        "kappa": None if chance == 1 else round((alike - chance) / (1 - chance), 4),
        "table": {f"{a}/{b}": count for (a, b), count in sorted(Counter(kinds).items())},
        "differ": [row_id for row_id, (a, b) in zip(both, kinds, strict=True) if a != b],
    }
