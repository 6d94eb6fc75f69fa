"""What people decided on pairs: the file that the report saves, and tasks and exports of Label Studio.

    {"format": "figa-review", "run_digest": "…", "reviewer": "ann", "decisions": [
      {"id": "1ad1b9395c257bc4", "decision": "keep"}, {"id": "…", "decision": "edit", "revised": "…"}]}

Of Label Studio: a JSON export, a list of tasks with their annotations; of several annotations of a task the last counts.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import InputError, UsageError
from pipeline.text import one_line

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
    """Read either format. Raises InputError naming the file, the entry and what was expected."""
    try:
        data = file.read_bytes()
        content = json.loads(data)
        entries = list(_tasks(content) if isinstance(content, list) else _saved(content))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        expected = "the file that the report saves, or Label Studio's JSON export, is expected"
        raise InputError(f"{file}: {expected} ({one_line(repr(error), 160)})") from None
    by_id: dict[str, Decision] = {}
    for number, (row_id, _, decision) in enumerate(entries, 1):
        if decision.kind not in KINDS or (decision.kind == "edit" and not (decision.revised or "").strip()):
            raise InputError(
                f"{file}, decision {number} ({row_id}): expected keep, drop, or edit with a text in `revised`"
            )
        by_id[row_id] = decision
    runs = {run for _, run, _ in entries}
    if len(runs) != 1:
        raise InputError(f"{file}: expected decisions on the pairs of one data set, found {len(runs)}")
    return Decisions(by_id, runs.pop(), hashlib.sha256(data).hexdigest())


def _saved(content: dict[str, Any]) -> Iterator[tuple[str, str, Decision]]:
    if content["format"] != "figa-review":
        raise ValueError(f"its format is {content['format']!r}")
    for entry in content["decisions"]:
        decision = Decision(str(entry["decision"]), entry.get("revised"), str(content["reviewer"]))
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


def label_studio_task(row: dict[str, Any], run_digest: str) -> dict[str, Any]:
    """A published pair as a task to import."""
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
